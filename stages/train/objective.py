"""What training descends: the caption's cross entropy, as options weigh it, correct it and add to it.

    L = sum_l w_l CE(f_l + c_l, y_l) / sum_l w_l + penalties

w are CAL's token weights, c what a source's style says, both of `stages.train.options`; a concept head and what a
connector asks for are penalties. Without options it is the mean over label tokens. Evaluation is always without.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from stages.train.batches import Batches, Losses
from stages.train.connector import ConnectorCard
from stages.train.hearing import Heard
from stages.train.logit_correction.caption_prior import caption_log_prior, token_counts
from stages.train.options.alignment_levels import levels, sample_scores
from stages.train.options.cal import Cal
from stages.train.options.concept_loss import ConceptLoss
from stages.train.options.concepts import sources_of
from stages.train.options.corrections import CaptionStyle, ConceptHead
from stages.train.options.settings import OptionSettings
from stages.train.templates import Template
from stages.train.text_logits import TextLogits, cached_text_logits

if TYPE_CHECKING:
    import torch

    from stages.train.bridge import Bridge

Drawn = Sequence[tuple[str, int]]
Around = Sequence[Template | None]
"""What stands around each sample; None: the language model's first template."""
Integers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Objective:
    """The options of a run that change what is descended, with what they know of each training sample."""

    cal: Cal | None = None
    text: Mapping[tuple[str, Template | None], TextLogits] = field(default_factory=dict)
    style: "torch.Tensor | None" = None
    """(S, V) what is added to the logits of each source's samples."""
    sources: Mapping[str, Integers] = field(default_factory=dict)
    concepts: ConceptLoss | None = None
    levels: Mapping[str, Integers] | None = None

    @classmethod
    def of(
        cls,
        settings: OptionSettings,
        batches: Batches,
        bridge: "Bridge",
        card: ConnectorCard,
    ) -> "Objective | None":
        """What a run's settings ask for; None for the plain loss.

        Args:
            settings: which options.
            batches: all training samples.
            bridge: what is trained.
            card: of the connector.

        Raises:
            RecipeError: samples that lack what an option asks for.
        """
        found = cls(
            cal=settings.token_weights,
            text=_text(batches, card) if settings.token_weights else {},
            **_corrections(settings.logit_correction, batches),
            levels=_levels(bridge, batches) if settings.levels else None,
        )
        return None if found == cls() else found

    def levels_of(self, drawn: Drawn) -> list[int] | None:
        """(n,) alignment levels of samples, for bridges with such."""
        return None if self.levels is None else [int(self.levels[name][i]) for name, i in drawn]

    def losses(self, bridge: "Bridge", heard: Heard, drawn: Drawn, around: Around) -> Losses:
        """Losses of some samples' labels as they are descended."""
        import torch

        logits = heard.logits
        if self.style is not None:
            numbers = torch.tensor([self.sources[name][i] for name, i in drawn], device=logits.device)
            logits = logits + self.style[numbers[heard.samples]]
        values = torch.nn.functional.cross_entropy(logits, heard.labels, reduction="none")
        return Losses(values, self._weights(heard, drawn, around), heard.samples, self._penalty(bridge, heard, drawn))

    def _weights(self, heard: Heard, drawn: Drawn, around: Around) -> "torch.Tensor":
        import torch

        if self.cal is None:
            return torch.ones_like(heard.labels, dtype=heard.logits.dtype)
        alone = np.concatenate([self.text[name, a].of(i) for (name, i), a in zip(drawn, around, strict=True)])
        with_image = heard.logits.detach().gather(1, heard.labels[:, None])[:, 0]
        return self.cal.weights(with_image, torch.from_numpy(alone).to(with_image.device), heard.samples)

    def _penalty(self, bridge: "Bridge", heard: Heard, drawn: Drawn) -> "torch.Tensor | None":
        if heard.shown is None:
            return None
        if self.concepts is None:
            return bridge.penalty
        part = bridge.parts[self.concepts.option.name]
        pictured = [number for number, image in enumerate(heard.images.tolist()) if image >= 0]
        which = heard.images[pictured]
        outputs = heard.shown.tokens[which, 0 if self.levels is None else 1 :]
        added = self.concepts.of_batch(part, outputs, heard.features[which], [drawn[number] for number in pictured])
        return added if bridge.penalty is None else added + bridge.penalty


def _text(batches: Batches, card: ConnectorCard) -> dict[tuple[str, Template | None], TextLogits]:
    language, folder, found = batches.frozen.language, batches.frozen.visual.folder, {}
    for name, corpus in batches.corpora.items():
        wordings: list[Template | None] = [None, *dict.fromkeys(language.templates)]
        for around in wordings:
            said = [
                language.said(corpus.caption(i), bool(corpus.whole[i]), 0 if corpus.images[i] else None, around)
                for i in range(len(corpus))
            ]
            kept = cached_text_logits(language, card.language_model, said, card.places, card.inject_layer, folder)
            found[name, around] = kept
    return found


def _corrections(option: Any, batches: Batches) -> dict[str, Any]:
    if isinstance(option, ConceptHead):
        return {"concepts": ConceptLoss.of(option, batches)}
    return _style(option, batches) if isinstance(option, CaptionStyle) else {}


def _style(option: CaptionStyle, batches: Batches) -> dict[str, Any]:
    import torch

    language = batches.frozen.language
    kinds, sources = sources_of(batches.corpora)
    vocabulary = language.model.get_output_embeddings().weight.shape[0]
    parted = [batches.corpora[name].parts([kinds[k] for k in sources[name]]) for name in batches.names]
    counts = np.zeros((len(kinds), vocabulary), np.int64)
    for parts in parted:
        for name, corpus in parts.items():
            counts[kinds.index(name)] += token_counts({name: corpus}, vocabulary, language.eos)[0]
    added = caption_log_prior(counts, option.smoothing, option.beta)
    return {"style": torch.from_numpy(added).float().to(language.device), "sources": sources}


def _levels(bridge: "Bridge", batches: Batches) -> dict[str, Integers]:
    part = bridge.parts["levels"]
    return {name: levels(part, sample_scores(corpus)) for name, corpus in batches.corpora.items()}

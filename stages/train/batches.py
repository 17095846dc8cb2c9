"""Samples by (source, number) behind a connector: what a training step, a probe and a reference have in common."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt
import xxhash

from stages.train.layout import NONE, PADDING, Layout, lay_out
from stages.train.samples import Corpus
from stages.train.templates import Template, drawn_templates

if TYPE_CHECKING:
    import torch

    from stages.train.bridge import Bridge, Shown
    from stages.train.language_model import LanguageModel
    from stages.train.loop import Frozen
    from stages.train.objective import Objective
    from stages.train.settings import TrainSettings

Doubles = npt.NDArray[np.float64]
ONLY = ""
"""Name of the source where a single corpus is trained on."""


class Counts(NamedTuple):
    """Places of a forward pass by what stands there."""

    visual: int
    text: int
    label: int
    """Labels predicted."""
    pad: int

    @classmethod
    def of(cls, layout: Layout) -> "Counts":
        """Of a layout."""
        visual, empty = int((layout.visual != NONE).sum()), int((layout.documents == PADDING).sum())
        return cls(visual, layout.tokens.size - visual - empty, len(layout.labels), empty)


NOTHING = Counts(0, 0, 0, 0)


@dataclass(frozen=True)
class Losses:
    """Losses of some samples' label tokens."""

    values: "torch.Tensor"
    """(L,) nats."""
    weights: "torch.Tensor"
    """(L,) of each in the mean."""
    samples: "torch.Tensor"
    """(L,) number of the sample, among those asked for."""
    penalty: "torch.Tensor | None" = None
    """Added to the mean."""
    counts: Counts = NOTHING
    """Of the forward pass."""

    def mean(self) -> "torch.Tensor":
        """What is descended: sum w_l x_l / sum w_l, and the penalty."""
        mean = (self.values * self.weights).sum() / self.weights.sum()
        return mean if self.penalty is None else mean + self.penalty

    def __len__(self) -> int:
        return len(self.values)


@dataclass(frozen=True)
class Manner:
    """How samples of a forward pass stand."""

    pack: int | None = None
    """Most places of a row that several samples share; None: each has its own."""
    share: bool = False
    """Whether captions of one image share its visual tokens."""
    templates: tuple[Template, ...] = ()
    """Of which one is drawn for each sample; none: the language model's first."""

    @classmethod
    def of(cls, settings: "TrainSettings", language: "LanguageModel") -> "Manner":
        """What settings ask for; the templates are the language model's."""
        return cls(settings.pack.length if settings.pack else None, settings.share_prefix, language.templates)


@dataclass(frozen=True)
class Sample:
    """What is put through the models."""

    caption: Sequence[int]
    whole: bool
    """False where the caption was cut, and its end is not predicted."""
    image: str
    """By hash; empty: text without an image."""
    template: Template | None = None
    """None: the language model's first."""
    level: int | None = None
    """Of its alignment, for a bridge that knows such; None: the highest."""


@dataclass(frozen=True)
class Heard:
    """What the language model says about some samples' label tokens."""

    logits: "torch.Tensor"
    """(L, vocabulary) float32."""
    labels: "torch.Tensor"
    """(L,) ids."""
    samples: "torch.Tensor"
    """(L,) number of the sample a label belongs to, from 0."""
    layout: Layout
    """Where everything stood."""
    images: "torch.Tensor"
    """(n,) number of each sample's image among those shown; -1: it has none."""
    features: "torch.Tensor"
    """(m, v, vision width) of the images shown."""
    shown: "Shown | None"
    """The images as the model saw them; None: there was none."""

    def cross_entropies(self) -> "torch.Tensor":
        """(L,) nats."""
        import torch

        return torch.nn.functional.cross_entropy(self.logits, self.labels, reduction="none")


def hear(bridge: "Bridge", frozen: "Frozen", samples: Sequence[Sample], manner: Manner = Manner()) -> Heard:
    """Put samples through the models.

    Args:
        bridge: what is trained.
        frozen: the models around it.
        samples: at least one.
        manner: how they stand.
    """
    import torch

    language = frozen.language
    around = [sample.template or language.template for sample in samples]
    numbers, first = _images(samples, around, manner.share)
    features, shown = torch.zeros(0, 0, 0), None
    if first:
        features = frozen.embeddings([samples[i].image for i in first])
        given = [samples[i].level for i in first]
        levels = None if None in given else torch.tensor(given, device=features.device)
        shown = language.show(bridge, features, [around[i] for i in first], levels)
    said = [
        language.said(sample.caption, sample.whole, None if image < 0 else image, template)
        for sample, image, template in zip(samples, numbers, around, strict=True)
    ]
    layout = lay_out(said, shown.places if shown else 0, pack=manner.pack, share=manner.share)
    logits = language.label_logits(layout, shown, bridge)
    labels, belong = (torch.from_numpy(part).to(logits.device) for part in (layout.labels, layout.samples))
    return Heard(logits, labels, belong, layout, torch.tensor(numbers, device=logits.device), features, shown)


def _images(samples: Sequence[Sample], around: Sequence[Template], share: bool) -> tuple[list[int], list[int]]:
    """The number of each sample's image among those shown, or -1; and the first sample of each of these.

    What a connector makes of an image may depend on the template and on the level: only equal ones are shared.
    """
    places: dict[object, int] = {}
    numbers: list[int] = []
    first: list[int] = []
    for i, sample in enumerate(samples):
        key = (sample.image, around[i], sample.level) if share else i
        if sample.image and key not in places:
            places[key] = len(first)
            first.append(i)
        numbers.append(places[key] if sample.image else -1)
    return numbers, first


@dataclass(frozen=True)
class Batches:
    """The samples of several sources, and the frozen models around the connector."""

    frozen: "Frozen"
    corpora: Mapping[str, Corpus]

    objective: "Objective | None" = None
    """What is made of the cross entropies that training descends; None: nothing, as for evaluation and probes."""
    manner: Manner = Manner()
    """How they stand in a forward pass."""
    turn: str | None = None
    """Decides, with a sample's key, which template it has; None: the first, as for evaluation and probes."""

    def losses(self, bridge: "Bridge", drawn: Sequence[tuple[str, int]]) -> Losses:
        """Losses in nats of some samples' label tokens."""
        import torch

        samples = self.samples(drawn)
        heard = hear(bridge, self.frozen, samples, self.manner)
        counts = Counts.of(heard.layout)
        if self.objective is not None:
            found = self.objective.losses(bridge, heard, drawn, [sample.template for sample in samples])
            return replace(found, counts=counts)
        values = heard.cross_entropies()
        penalty = None if heard.shown is None else bridge.penalty
        return Losses(values, torch.ones_like(values), heard.samples, penalty, counts)

    def samples(self, drawn: Sequence[tuple[str, int]]) -> list[Sample]:
        """Some samples, with the template and the level that each has."""
        around: Sequence[Template | None] = [None] * len(drawn)
        if self.turn is not None and self.manner.templates:
            around = drawn_templates(self.manner.templates, self.keys(drawn), self.turn)
        levels: Sequence[int | None] = [None] * len(drawn)
        if self.objective is not None:
            levels = self.objective.levels_of(drawn) or levels
        found = []
        for (name, i), template, level in zip(drawn, around, levels, strict=True):
            corpus = self.corpora[name]
            found.append(Sample(corpus.caption(i), bool(corpus.whole[i]), corpus.images[i], template, level))
        return found

    def at(self, turn: str) -> "Batches":
        """The same samples, each with the template that is drawn for it."""
        return replace(self, turn=turn)

    def beside(self, corpora: Mapping[str, Corpus]) -> "Batches":
        """These and other sources."""
        return replace(self, corpora={**self.corpora, **corpora})

    def under(self, objective: "Objective | None") -> "Batches":
        """The same samples with another objective."""
        return replace(self, objective=objective)

    def keys(self, drawn: Sequence[tuple[str, int]]) -> list[str]:
        """What some samples are called."""
        return [self.corpora[name].keys[i] for name, i in drawn]

    def told(self, drawn: Sequence[tuple[str, int]]) -> list[dict[str, str]]:
        """Where some samples are to be found: source, shard and key."""
        found = []
        for name, i in drawn:
            corpus = self.corpora[name]
            shard = "/".join(Path(corpus.shard(i)).parts[-2:])
            found.append({"source": name, "shard": shard, "key": corpus.keys[i]})
        return found

    @property
    def names(self) -> tuple[str, ...]:
        """The sources, in the order in which weights stand."""
        return tuple(sorted(self.corpora))

    @property
    def natural(self) -> Doubles:
        """(S,) each source's share of all samples."""
        rows = np.array([len(self.corpora[name]) for name in self.names], np.float64)
        return np.asarray(rows / rows.sum(), np.float64)

    @property
    def fingerprint(self) -> str:
        """32 hex digits over the sources' names and samples; of a single corpus, its own fingerprint."""
        if list(self.corpora) == [ONLY]:
            return self.corpora[ONLY].fingerprint
        named = "".join(f"{name}\0{self.corpora[name].fingerprint}\n" for name in sorted(self.corpora))
        return xxhash.xxh3_128_hexdigest(named.encode())

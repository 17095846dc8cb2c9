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

if TYPE_CHECKING:
    import torch

    from stages.train.bridge import Bridge, Shown
    from stages.train.loop import Frozen
    from stages.train.objective import Objective

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
class Heard:
    """What the language model says about some samples' label tokens."""

    logits: "torch.Tensor"
    """(L, vocabulary) float32."""
    labels: "torch.Tensor"
    """(L,) ids."""
    samples: "torch.Tensor"
    """(L,) number of the sample a label belongs to, from 0."""
    shown: "Shown"
    """The samples' images as the model saw them."""
    features: "torch.Tensor"
    """(n, v, vision width) of the samples' images."""
    layout: Layout
    """Where everything stood."""

    def cross_entropies(self) -> "torch.Tensor":
        """(L,) nats."""
        import torch

        return torch.nn.functional.cross_entropy(self.logits, self.labels, reduction="none")


def hear(
    bridge: "Bridge",
    frozen: "Frozen",
    captions: Sequence[Sequence[int]],
    whole: Sequence[bool],
    images: Sequence[str],
    levels: "torch.Tensor | None" = None,
) -> Heard:
    """Put samples through the models.

    Args:
        bridge: what is trained.
        frozen: the models around it.
        captions: (n,) tokens.
        whole: (n,) False where a caption was cut, and its end is not predicted.
        images: (n,) by hash.
        levels: (n,) of their alignment, for a bridge that knows such; None: the highest.
    """
    import torch

    language, features = frozen.language, frozen.embeddings(list(images))
    shown = language.show(bridge, features, levels=levels)
    spoken = enumerate(zip(captions, whole, strict=True))
    said = [language.said(ids, all_of_it, image) for image, (ids, all_of_it) in spoken]
    layout = lay_out(said, shown.places)
    logits = language.label_logits(layout, shown, bridge)
    labels, samples = (torch.from_numpy(part).to(logits.device) for part in (layout.labels, layout.samples))
    return Heard(logits, labels, samples, shown, features, layout)


@dataclass(frozen=True)
class Batches:
    """The samples of several sources, and the frozen models around the connector."""

    frozen: "Frozen"
    corpora: Mapping[str, Corpus]

    objective: "Objective | None" = None
    """What is made of the cross entropies that training descends; None: nothing, as for evaluation and probes."""

    def losses(self, bridge: "Bridge", drawn: Sequence[tuple[str, int]]) -> Losses:
        """Losses in nats of some samples' label tokens."""
        import torch

        chosen = [(self.corpora[name], i) for name, i in drawn]
        heard = hear(
            bridge,
            self.frozen,
            [corpus.caption(i) for corpus, i in chosen],
            [bool(corpus.whole[i]) for corpus, i in chosen],
            [corpus.images[i] for corpus, i in chosen],
            self.objective.levels_of(drawn) if self.objective else None,
        )
        counts = Counts.of(heard.layout)
        if self.objective is not None:
            return replace(self.objective.losses(bridge, heard, drawn), counts=counts)
        values = heard.cross_entropies()
        return Losses(values, torch.ones_like(values), heard.samples, bridge.penalty, counts)

    def beside(self, name: str, corpus: Corpus) -> "Batches":
        """These and another source."""
        return replace(self, corpora={**self.corpora, name: corpus})

    def under(self, objective: "Objective | None") -> "Batches":
        """The same samples with another objective."""
        return replace(self, objective=objective)

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

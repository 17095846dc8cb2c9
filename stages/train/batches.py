"""Samples by (source, number) behind a connector: what a training step, a probe and a reference have in common."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt
import xxhash

from stages.train.hearing import ALONE, Manner, Sample, hear
from stages.train.layout import NONE, PADDING, Layout
from stages.train.samples import Corpus
from stages.train.templates import Template, drawn_templates

if TYPE_CHECKING:
    import torch

    from stages.train.bridge import Bridge
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
class Batches:
    """The samples of several sources, and the frozen models around the connector."""

    frozen: "Frozen"
    corpora: Mapping[str, Corpus]

    objective: "Objective | None" = None
    """What is made of the cross entropies that training descends; None: nothing, as for evaluation and probes."""
    manner: Manner = ALONE
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

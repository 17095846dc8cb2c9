"""Samples by (source, number) behind a connector: what a training step, a probe and a reference have in common."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import xxhash

from stages.train.samples import Corpus

if TYPE_CHECKING:
    import torch

    from stages.train.loop import Frozen

Doubles = npt.NDArray[np.float64]
ONLY = ""
"""Name of the source where a single corpus is trained on."""


@dataclass(frozen=True)
class Batches:
    """The samples of several sources, and the frozen models around the connector."""

    frozen: "Frozen"
    corpora: Mapping[str, Corpus]

    def losses(self, module: "torch.nn.Module", drawn: Sequence[tuple[str, int]]) -> "tuple[torch.Tensor, int]":
        """(n, t) cross entropy in nats of some samples' label tokens, and how many of these there are."""
        chosen = [(self.corpora[name], i) for name, i in drawn]
        language = self.frozen.language
        labels = language.labels(
            [corpus.caption(i) for corpus, i in chosen], [bool(corpus.whole[i]) for corpus, i in chosen]
        )
        visual = module(self.frozen.embeddings([corpus.images[i] for corpus, i in chosen]))
        return language.token_losses(visual, labels), int((labels >= 0).sum())

    def beside(self, name: str, corpus: Corpus) -> "Batches":
        """These and another source."""
        return Batches(self.frozen, {**self.corpora, name: corpus})

    def keys(self, drawn: Sequence[tuple[str, int]]) -> list[str]:
        """What some samples are called."""
        return [self.corpora[name].keys[i] for name, i in drawn]

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

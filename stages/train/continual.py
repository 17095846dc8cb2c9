"""Going on from an earlier run: replayed samples, and a learning rate that never ends (see docs/continual.md).

Replay mixes a share of old samples into every batch (arXiv:2403.08763; arXiv:2408.14471). An infinite rate rises, cools
down to a constant from which any number of runs can go on, and is annealed once at the end (arXiv:2403.08763).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from stages.train.samples import Corpus

Doubles = npt.NDArray[np.float64]
REPLAY = "/replay"
"""The replayed samples among the sources; no source's name has a slash."""


class Replay(BaseModel):
    """Old samples in every batch."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    shards: tuple[str, ...] = Field(min_length=1)
    """WebDataset tars of an earlier export."""
    share: float = Field(gt=0, lt=1)
    """Of every batch."""


class Infinite(BaseModel):
    """Rate after the warm-up: peak to `constant` by a cosine, constant, then exponentially to the floor."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    constant: float = Field(0.5, gt=0, le=1)
    """Of `learning_rate`."""
    cooldown: float = Field(0.25, ge=0, lt=1)
    """Share of the steps from the peak to the constant."""
    anneal: float = Field(0.1, ge=0, lt=1)
    """Share of the steps from the constant to the floor; 0: the run will be gone on from."""


@dataclass(frozen=True)
class Replayed:
    """Samples beside the sources, and their share of every batch."""

    corpus: Corpus
    share: float
    name: str = REPLAY

    def facts(self, drawn: Mapping[str, int]) -> dict[str, Any]:
        """For the record."""
        return {"samples": len(self.corpus), "share": self.share, "drawn": drawn[self.name]}


@dataclass(frozen=True)
class Beside:
    """All that stands in every batch beside the sources."""

    parts: tuple[Replayed, ...] = ()

    @classmethod
    def of(cls, *parts: Replayed | None) -> "Beside":
        """What there is of it."""
        return cls(tuple(part for part in parts if part is not None))

    @property
    def corpora(self) -> dict[str, Corpus]:
        """The samples by name."""
        return {part.name: part.corpus for part in self.parts}

    @property
    def identity(self) -> dict[str, Any]:
        """What a run depends on."""
        return {part.name.removeprefix("/"): [part.share, part.corpus.fingerprint] for part in self.parts}

    def among(self, weights: Doubles, names: tuple[str, ...]) -> Doubles:
        """(S + B,) shares of all that is drawn from; `weights` (S,) are those of the sources alone."""
        shares = {part.name: part.share for part in self.parts}
        left = 1 - sum(shares.values())
        found = dict(zip([name for name in names if name not in shares], left * weights, strict=True))
        return np.array([{**found, **shares}[name] for name in names])

"""Which sources matter: nearness to the target, what is lost without one, what one adds to another.

    alone_i     the objective of source i alone
    cosine_i    cosine of the mean embeddings of source i and the target
    loss_i      best mixture without source i, minus the best of all (>= 0): leave one out
    gain_ij     best mixture of i and j, minus i alone (<= 0): what adding j to i changes

Two sources of which each makes the other needless both have a small loss; the pair table shows why. What the best
mixture of some sources is worth comes from a function, so that a mixer's own atoms and potentials serve.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt

Doubles = npt.NDArray[np.float64]
BestOf = Callable[[list[int]], float]
"""The objective of the best mixture of these sources (places)."""


@dataclass(frozen=True)
class Ranking:
    """The tables."""

    alone: dict[str, float]
    """By source, the nearest first."""
    cosine: dict[str, float]
    leave_one_out: dict[str, float]
    """Objective lost without each source, the largest loss first; empty where there is one source."""
    pairs: dict[str, dict[str, float]]
    """pairs[i][j]: change of the objective when j joins i; of the sources that are nearest alone."""

    def facts(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "order": list(self.alone),
            "alone": self.alone,
            "cosine": self.cosine,
            "leave_one_out": self.leave_one_out,
            "pairs": self.pairs,
        }


def rank_sources(
    names: Sequence[str],
    alone: Mapping[str, float],
    cosine: Mapping[str, float],
    best: BestOf,
    shares: Doubles,
    pairs: int,
) -> Ranking:
    """Rank S sources.

    Args:
        names: in the order of places.
        alone: the objective of each source alone.
        cosine: of each source's mean embedding with the target's.
        best: the objective of the best mixture of some sources.
        shares: (S,) the best mixture of all; a source without a share is not missed.
        pairs: how many sources the pair table holds at most: P (P - 1) / 2 small problems.
    """
    order = sorted(names, key=lambda name: (alone[name], name))
    everything = list(range(len(names)))
    whole = best(everything)
    losses = {
        name: max(0.0, best([j for j in everything if j != i]) - whole) if shares[i] > 0 else 0.0
        for i, name in enumerate(names)
        if len(names) > 1
    }
    return Ranking(
        {name: float(alone[name]) for name in order},
        {name: float(cosine[name]) for name in order},
        dict(sorted(losses.items(), key=lambda item: (-item[1], item[0]))),
        _pairs(names, order[: pairs if pairs > 1 else 0], alone, best),
    )


def _pairs(names: Sequence[str], chosen: Sequence[str], alone: Mapping[str, float], best: BestOf) -> Any:
    place = {name: i for i, name in enumerate(names)}
    found: dict[str, dict[str, float]] = {name: {} for name in chosen}
    for one, other in combinations(chosen, 2):
        together = best(sorted((place[one], place[other])))
        found[one][other] = min(0.0, together - alone[one])
        found[other][one] = min(0.0, together - alone[other])
    return found


def mean_cosines(means: Mapping[str, Doubles], target: Doubles) -> dict[str, float]:
    """By source, the cosine of its mean embedding (d,) with the target's (d,); 0 where a mean is 0."""
    found = {}
    for name, mean in means.items():
        lengths = float(np.linalg.norm(mean) * np.linalg.norm(target))
        found[name] = float(mean @ target) / lengths if lengths else 0.0
    return found

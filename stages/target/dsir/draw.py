"""Draws for several targets, one after the other: what an earlier one has drawn is gone for the later ones.

As released, target i of n gets int(k x share_i) of k rows, and the last one what the rounding leaves.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from stages.budget import Budget, Mask
from stages.ngrams import Doubles
from stages.target.dsir.weights import scores, spread

PURPOSE = "dsir"
JUST_BELOW = -np.finfo(np.float64).tiny


@dataclass(frozen=True)
class Draw:
    """How the eligible rows (n,) rank with noise and without, which are drawn, and what weights were divided by."""

    score: Doubles
    importance: Doubles
    chosen: Mask
    deviations: list[float]


@dataclass(frozen=True)
class Lottery:
    """The eligible rows and all that decides about them beside their weights."""

    eligible: pl.DataFrame
    """(n,) uid, weights under their numbers, and tokens for a budget of tokens; in uid order."""
    budget: Budget
    shares: Sequence[float]
    """Per target; they add up to 1."""
    noise: Sequence[Doubles]
    """Per target (n,)."""
    sharpness: float | None
    """Of per-token weights; None takes weights as they are."""
    seed: int

    def draw(self, first: int, deviations: Sequence[float] | None = None) -> Draw:
        """By the weights from number `first` on, one per target; `deviations` where they are known.

        Raises:
            CuveeError: the budget is more than there is.
        """
        weights = [self.eligible[str(first + number)].to_numpy() for number in range(len(self.shares))]
        found = [spread(log) for log in weights] if deviations is None else list(deviations)
        shifted = [scores(log, self.sharpness, by) for log, by in zip(weights, found, strict=True)]
        score, importance = one_ranking(self.eligible["uid"], shifted, self.noise, self._counts(), self.seed)
        ranked = self.eligible.with_columns(pl.Series("score", score))
        return Draw(score, importance, self.budget.take(ranked, self.seed, PURPOSE), found)

    def _counts(self) -> list[int]:
        tokens = int(self.eligible["tokens"].sum()) if self.budget.tokens is not None else 0
        return rows_per_target(self.budget.rows(len(self.eligible), tokens), self.shares)


def rows_per_target(rows: int, shares: Sequence[float]) -> list[int]:
    """How many of `rows` each target draws; shares add up to 1."""
    counts = [int(rows * share) for share in shares[:-1]]
    return [*counts, max(rows - sum(counts), 0)]


def one_ranking(
    uids: pl.Series, weights: Sequence[Doubles], noise: Sequence[Doubles], counts: Sequence[int], seed: int
) -> tuple[Doubles, Doubles]:
    """(n,) numbers whose sum(counts) largest are the rows that the targets draw in turn, and what is noise taken off.

    A target draws by weights + noise, both (n,). Of several it is how far a row is above the last one drawn, where that
    is most: >= 0 for drawn rows and < 0 for others. Of one target it is what that draws by.
    """
    if len(weights) == 1:
        return weights[0] + noise[0], weights[0]
    left, above, bare = np.ones(len(uids), np.bool_), np.full(len(uids), -np.inf), np.full(len(uids), -np.inf)
    for weight, own, count in zip(weights, noise, counts, strict=True):
        if not count:
            continue
        places, score = np.flatnonzero(left), weight + own
        ranked = pl.DataFrame({"uid": uids.gather(places), "score": score[places]})
        drawn = places[Budget.model_validate({"samples": count}).take(ranked, seed, PURPOSE)]
        left[drawn] = False
        border = score[drawn].min()
        nearer = score - border > above
        above[nearer], bare[nearer] = score[nearer] - border, weight[nearer] - border
    above[left] = np.minimum(above[left], JUST_BELOW)
    above[~left] = np.maximum(above[~left], 0.0)
    return above, bare

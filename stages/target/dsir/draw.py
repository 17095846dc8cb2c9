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
    """How the eligible rows (n,) rank, which are drawn, and per target what its weights were divided by."""

    score: Doubles
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
        noisy = [score + noise for score, noise in zip(shifted, self.noise, strict=True)]
        score = one_ranking(self.eligible["uid"], noisy, self._counts(), self.seed)
        ranked = self.eligible.with_columns(pl.Series("score", score))
        return Draw(score, self.budget.take(ranked, self.seed, PURPOSE), found)

    def _counts(self) -> list[int]:
        tokens = int(self.eligible["tokens"].sum()) if self.budget.tokens is not None else 0
        return rows_per_target(self.budget.rows(len(self.eligible), tokens), self.shares)


def rows_per_target(rows: int, shares: Sequence[float]) -> list[int]:
    """How many of `rows` each target draws; shares add up to 1."""
    counts = [int(rows * share) for share in shares[:-1]]
    return [*counts, max(rows - sum(counts), 0)]


def one_ranking(uids: pl.Series, scores: Sequence[Doubles], counts: Sequence[int], seed: int) -> Doubles:
    """(n,) numbers whose sum(counts) largest are the rows that the targets draw by their scores (n,) in turn.

    Of several targets it is how far a row is above the last one drawn, where that is most: >= 0 for drawn rows and < 0
    for others. Of one target it is the score itself.
    """
    if len(scores) == 1:
        return scores[0]
    left, above = np.ones(len(uids), np.bool_), np.full(len(uids), -np.inf)
    for score, count in zip(scores, counts, strict=True):
        if not count:
            continue
        places = np.flatnonzero(left)
        ranked = pl.DataFrame({"uid": uids.gather(places), "score": score[places]})
        drawn = places[Budget.model_validate({"samples": count}).take(ranked, seed, PURPOSE)]
        left[drawn] = False
        above = np.maximum(above, score - score[drawn].min())
    above[left] = np.minimum(above[left], JUST_BELOW)
    above[~left] = np.maximum(above[~left], 0.0)
    return above

"""Kullback-Leibler divergence between two bags of n-grams."""

import numpy as np
import numpy.typing as npt

from schemas.errors import CuveeError

Integers = npt.NDArray[np.int64]
Doubles = npt.NDArray[np.float64]

PSEUDO_COUNT = 0.1
BACKGROUND = 0.1
"""Share of the pool in what `smoothed_divergence` compares the target with."""


def kl_divergence(target: Integers, other: Integers) -> float:
    """KL(target || other) >= 0 in nats between two histograms (B,), each with 0.1 pseudo-counts per bucket.

    Without them a bucket that `other` lacks would count for as much as the floor of the logarithm is low.
    """
    p, q = frequencies(target, PSEUDO_COUNT), frequencies(other, PSEUDO_COUNT)
    return float(np.sum(p * np.log(p / q)))


def frequencies(counts: Integers, extra: float) -> Doubles:
    """(B,) (c + extra) / sum(c + extra).

    Raises:
        CuveeError: nothing to count.
    """
    total = counts.sum() + extra * len(counts)
    if total <= 0:
        raise CuveeError("found no n-gram to count; the pool or the target has no caption with a token")
    found: Doubles = (counts + extra) / total
    return found


def smoothed_divergence(target: Integers, chosen: Integers, pool: Integers) -> float:
    """KL(p || 0.9 q + 0.1 b) >= 0 in nats of histograms (B,): p the target's, q the choice's, b the whole pool's.

    A choice of longer captions has more n-grams, so equal pseudo-counts would smooth it less and flatter it; here a
    tenth of every choice is the pool's. Only n-grams that the pool has count, for no choice can bring the others. With
    nothing chosen it is KL(p || b) + log 10, which is the most that it can be.

    Raises:
        CuveeError: none of the target's n-grams occurs in the pool.
    """
    shared = np.flatnonzero((target > 0) & (pool > 0))
    wanted = target[shared].astype(np.float64)
    if not len(shared):
        raise CuveeError("none of the target's n-grams occurs in the pool")
    q = (1 - BACKGROUND) * chosen[shared] / max(int(chosen.sum()), 1) + BACKGROUND * pool[shared] / int(pool.sum())
    p = wanted / wanted.sum()
    return float(np.sum(p * np.log(p / q)))


def coverage(target: Integers, pool: Integers) -> float:
    """Share of the target's n-grams that the pool has at all."""
    return int(target[pool > 0].sum()) / max(int(target.sum()), 1)

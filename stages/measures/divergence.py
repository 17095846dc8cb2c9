"""Kullback-Leibler divergence between two bags of n-grams."""

import numpy as np
import numpy.typing as npt

from schemas.errors import CuveeError

Integers = npt.NDArray[np.int64]
Doubles = npt.NDArray[np.float64]

PSEUDO_COUNT = 0.1


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

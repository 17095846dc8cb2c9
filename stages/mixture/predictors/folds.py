"""Runs in folds by mixture: a mixture's repeats are all learned from or all left out."""

from collections.abc import Iterator

import numpy as np

from stages.mixture.predictors.predictor import Doubles, Integers
from stages.noise import uniform_noise

SAME = 9
"""Decimals in which the shares of two runs agree that are of one mixture."""


def mixture_groups(mixtures: Doubles) -> Integers:
    """(n,) equal numbers for equal mixtures (n, S)."""
    found = np.unique(mixtures.round(SAME) + 0.0, axis=0, return_inverse=True)[1]
    groups: Integers = found.reshape(-1).astype(np.int64)
    return groups


def folds(groups: Integers, count: int, seed: int) -> Iterator[tuple[Integers, Integers]]:
    """`count` pairs of rows (learned from, left out), as even as the groups allow; fewer where there are fewer groups.

    Which groups share a fold depends on the seed and on the order of their numbers alone.
    """
    names, sizes = np.unique(groups, return_counts=True)
    noise = uniform_noise([str(rank) for rank in range(len(names))], seed, "folds")
    order = np.lexsort((noise, -sizes))
    fold_of = np.empty(len(names), np.int64)
    fold_of[order] = np.arange(len(names)) % min(count, len(names))
    of_run = fold_of[np.searchsorted(names, groups)]
    for fold in range(min(count, len(names))):
        yield np.flatnonzero(of_run != fold), np.flatnonzero(of_run == fold)

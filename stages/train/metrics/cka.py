"""Centred kernel alignment, unbiased, and its nearest-neighbour form CKNNA (arXiv:1905.00414, arXiv:2405.07987).

The biased estimate is inflated where there are fewer rows than dimensions, which is the usual case here.
"""

import numpy as np
import numpy.typing as npt

from stages.train.metrics.kernels import gram, hsic_unbiased, neighbours, normalised, refuse_few

Doubles = npt.NDArray[np.float64]


def cka(left: Doubles, right: Doubles) -> float:
    """HSIC(K, L) / sqrt(HSIC(K, K) HSIC(L, L)) of paired rows' cosines, unbiased: 0 is expected by chance, 1 the most.

    Raises:
        CuveeError: other numbers of rows, or fewer than 4.
    """
    refuse_few(left, right, 3)
    return cka_of_kernels(gram(left), gram(right))


def cka_of_kernels(left: Doubles, right: Doubles) -> float:
    """The same of (n, n) kernels."""
    return normalised(hsic_unbiased(left, right), hsic_unbiased(left, left), hsic_unbiased(right, right))


def cknna(left: Doubles, right: Doubles, k: int = 10) -> float:
    """CKA of kernels that keep only neighbours: K and L hold what is among the k nearest by both kernels, at most 1.

    The cross term keeps what both call near, each self term what its own kernel does.

    Raises:
        CuveeError: other numbers of rows, or no more than k of them.
    """
    refuse_few(left, right, k)
    return cknna_of_kernels(gram(left), gram(right), k)


def cknna_of_kernels(left: Doubles, right: Doubles, k: int) -> float:
    """The same of (n, n) kernels."""
    near_left, near_right = neighbours(left, k), neighbours(right, k)
    both = near_left & near_right
    mine, theirs = left * near_left, right * near_right
    cross = hsic_unbiased(left * both, right * both)
    return normalised(cross, hsic_unbiased(mine, mine), hsic_unbiased(theirs, theirs))

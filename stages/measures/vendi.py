"""The Vendi score (Friedman and Dieng, arXiv:2210.02410): the effective number of different samples in a set.

    VS = exp(-sum_i l_i log l_i),   l_1, l_2, ... the eigenvalues of K / n,   K_ij = x_i . x_j,   |x_i| = 1

It is 1 for n copies of one sample and n for n orthogonal ones; with vectors of width d it cannot pass d. K / n and the
d x d matrix X^T X / n have the same eigenvalues but for zeros, so a million rows cost no n x n matrix.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

Doubles = npt.NDArray[np.float64]

STEPS = 2.0**15
"""Coordinates of unit vectors are rounded to multiples of 2^-15: float64 sums are exact then, whatever their order."""
MOST_ROWS = 2**22
"""Up to which they are: products are multiples of 2^-30, and no sum of so many of them passes 2^23."""


def moments(rows: npt.NDArray[Any]) -> Doubles:
    """(d, d) X^T X of unit rows (n, d), n <= `MOST_ROWS`; those of parts add up to that of the whole, to the bit."""
    rounded = np.rint(np.asarray(rows, np.float64) * STEPS) / STEPS
    found: Doubles = rounded.T @ rounded
    return found


def vendi_score(moments: Doubles) -> float:
    """The score in [1, d] from X^T X (d, d) of one row or more; its trace stands for n: lengths need not be exact."""
    values = np.linalg.eigvalsh(moments)
    shares = values[values > 0] / values[values > 0].sum()
    return float(np.exp(-(shares * np.log(shares)).sum()))

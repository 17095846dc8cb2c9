"""Whitening: distances in units of the spread that the rows have in each direction (Mahalanobis distances).

    z = unit(L^-1 (x - mean)),  L L^T = (1 - s) cov + s tr(cov) / d I

Cholesky and ZCA whitening give the same distances. The fit has fixed bits: the covariance is a sum of exact products,
the factorisation runs row by row without BLAS. So have white rows: L^-1 is rounded to a grid on which float16 rows
times L^-1 are exact in float64, see `distances.py`; what follows is done row by row, and z is float16 again.
"""

import math
from dataclasses import dataclass

import numpy as np

from stages.vectors import Doubles, Vectors, blocks

BLOCK_ROWS = 2048
EXACT_ROWS = 16
"""Rows whose products float64 adds up exactly: 48 bits below the point and 4 above it."""
MANTISSA = 53
ROW_BITS = 24
"""Entries of unit vectors in float16 are multiples of 2^-24."""
LONGEST_ROW = 3.0
"""Eight unit vectors side by side are shorter."""


@dataclass(frozen=True)
class Whitening:
    """What was learned."""

    mean: Doubles
    """(d,)"""
    inverse: Doubles
    """(d, d) L^-1 transposed: rows times it are white."""

    def __call__(self, rows: Vectors) -> Vectors:
        """(n, d) white rows of norm 1; a row at the mean itself becomes a row of zeros."""
        found = np.empty_like(rows)
        # Subtracted entry by entry from the exact product.
        shift = (self.mean[:, None] * self.inverse).sum(axis=0)
        for part in blocks(len(rows), BLOCK_ROWS):
            white = rows[part].astype(np.float64) @ self.inverse
            white -= shift
            norms = np.sqrt(np.square(white).sum(axis=1, keepdims=True))
            found[part] = np.divide(white, norms, out=np.zeros_like(white), where=norms > 0)
        return found


def fit_whitening(rows: Vectors, shrinkage: float) -> Whitening:
    """Learn from (n, d) unit rows in a fixed order; `shrinkage` s in (0, 1]."""
    n, d = rows.shape
    mean, second = rows.sum(axis=0, dtype=np.float64) / n, np.zeros((d, d))
    for part in blocks(n, EXACT_ROWS):
        wide = rows[part].astype(np.float64)
        second += wide.T @ wide
    covariance = second / n - mean[:, None] * mean
    ridge = shrinkage * float(np.trace(covariance)) / d
    covariance *= 1 - shrinkage
    covariance[np.diag_indices(d)] += ridge or 1.0  # rows that are all alike have no spread to divide by
    return Whitening(mean, _on_grid(_inverse(_cholesky(covariance)).T))


def _cholesky(matrix: Doubles) -> Doubles:
    """Lower L with L L^T = matrix (d, d): one outer product a column, elementwise."""
    left, lower = matrix.copy(), np.zeros_like(matrix)
    for k in range(len(matrix)):
        lower[k:, k] = left[k:, k] / math.sqrt(left[k, k])
        left[k + 1 :, k + 1 :] -= lower[k + 1 :, k, None] * lower[k + 1 :, k]
    return lower


def _inverse(lower: Doubles) -> Doubles:
    """L^-1 by forward substitution, one outer product a row, elementwise."""
    left, found = np.eye(len(lower)), np.zeros_like(lower)
    for k in range(len(lower)):
        found[k] = left[k] / lower[k, k]
        left[k + 1 :] -= lower[k + 1 :, k, None] * found[k]
    return found


def _on_grid(matrix: Doubles) -> Doubles:
    """Rounded to the finest grid on which sums of x w for rows x are exact: 27 and more bits for the largest."""
    largest = LONGEST_ROW * float(np.sqrt(np.square(matrix).sum(axis=0)).max())  # bounds every partial sum, by Cauchy
    step = 2.0 ** (math.ceil(math.log2(largest)) - (MANTISSA - ROW_BITS))
    rounded: Doubles = np.rint(matrix / step) * step
    return rounded

"""How many rows stand where a row stands: a kernel density with bounded support."""

import numpy as np

from stages.transport.distances import squared_distances
from stages.vectors import Doubles, Vectors, blocks

BLOCK_ROWS = 128
GRID = 2.0**40
"""Kernels are rounded to multiples of its inverse: sums of up to 8192 of them are exact, in any order."""
MOST_NEIGHBOURS = 8192


def densities(rows: Vectors, sigma: float, neighbours: int, columns: int = 1) -> Doubles:
    """(n,) rho_j = sum over its nearest rows l, itself included, of max(0, 1 - |x_j - x_l|^2 / sigma^2), >= 1.

    Args:
        rows: (n, d) unit vectors.
        sigma: reach of the kernel; 0 tells no two rows apart from others: rho is 1.
        neighbours: how many of the nearest count, at most 8192.
        columns: what squared distances are divided by.
    """
    found = np.ones(len(rows))
    for part in blocks(len(rows) if sigma > 0 else 0, BLOCK_ROWS):
        kernel = squared_distances(rows[part], rows, columns)
        kernel /= -(sigma**2)
        kernel += 1.0
        np.maximum(kernel, 0.0, out=kernel)
        if len(rows) > neighbours and (np.count_nonzero(kernel, axis=1) > neighbours).any():
            kernel = np.partition(kernel, len(rows) - neighbours, axis=1)[:, len(rows) - neighbours :]
        kernel *= GRID
        found[part] = np.rint(kernel, out=kernel).sum(axis=1) / GRID
    return found

"""Squared distances to the last bit, and c-transforms through them: the same bits on any processor, GPUs included.

Entries of unit vectors in float16 are multiples of 2^-24 up to 1, so |x|^2 + |y|^2 - 2 <x, y> is a multiple of 2^-48,
and every partial sum of it is below 32: 53 bits. Float64 rounds nothing, in whatever order a matrix product adds; what
follows is one IEEE operation an element, and a minimum knows no order. So parts, blocks, threads and the device cannot
change a bit, and no approximate search has to be corrected afterwards.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:  # at run time numpy is enough, and torch for a GPU
    import torch

    from stages.vectors import Doubles, Vectors

BLOCK_ROWS = 2048
GPU_BLOCK_ROWS = 32_768


def squared_norms(rows: Vectors) -> Doubles:
    """(n,) exact squared lengths of (n, d) rows."""
    found = np.empty(len(rows))
    for part in _blocks(len(rows), BLOCK_ROWS):
        found[part] = np.square(rows[part].astype(np.float64)).sum(axis=1)
    return found


def squared_distances(rows: Vectors, atoms: Vectors, columns: int = 1) -> Doubles:
    """(n, m) costs |x_i - y_j|^2 / columns of (n, d) rows and (m, d) atoms, in [0, 4]: exact before the division."""
    products = rows.astype(np.float64) @ atoms.astype(np.float64).T
    products *= -2.0
    products += squared_norms(rows)[:, None]
    products += squared_norms(atoms)
    products /= columns
    return products


def c_transform(rows: Vectors, atoms: Vectors, potentials: Doubles, columns: int = 1, softness: float = 0.0) -> Doubles:
    """(n,) potentials f(x) = min_j c(x, y_j) - g_j of any rows, from those of the m atoms; O(n m d), blocks of memory.

    With `softness` e > 0: f(x) = -e log (1/m) sum_j exp((g_j - c(x, y_j)) / e), which tends to the minimum as e does to
    0 (up to e log m); a row's sum runs over the atoms in their order, whatever the block.
    """
    found = np.empty(len(rows))
    for part in _blocks(len(rows), BLOCK_ROWS):
        costs = squared_distances(rows[part], atoms, columns)
        costs -= potentials
        found[part] = costs.min(axis=1) if softness == 0 else _soft_minimum(costs, softness)
    return found


def c_transform_on(
    device: str, rows: Vectors, atoms: Vectors, potentials: Doubles, columns: int = 1, block: int = GPU_BLOCK_ROWS
) -> Doubles:
    """The bits of `c_transform` (without softness), by torch on any device: its float64 is exact too."""
    import torch

    found = np.empty(len(rows))
    wide = torch.from_numpy(atoms).to(device).to(torch.float64)
    offsets, levels = wide.square().sum(dim=1), torch.from_numpy(potentials).to(device)
    for part in _blocks(len(rows), block):
        there = torch.from_numpy(np.ascontiguousarray(rows[part])).to(device).to(torch.float64)
        found[part] = _minima(there, wide, offsets, levels, columns).cpu().numpy()
    return found


def _minima(
    rows: torch.Tensor, atoms: torch.Tensor, offsets: torch.Tensor, levels: torch.Tensor, columns: int
) -> torch.Tensor:
    costs = rows @ atoms.T
    costs *= -2.0
    costs += offsets
    costs += rows.square().sum(dim=1)[:, None]
    costs /= columns
    costs -= levels
    return costs.amin(dim=1)


def _soft_minimum(costs: Doubles, softness: float) -> Doubles:
    lowest = costs.min(axis=1)
    powers = np.exp((lowest[:, None] - costs) / softness)
    soft: Doubles = lowest - softness * np.log(powers.mean(axis=1))
    return soft


def _blocks(n: int, rows: int) -> Iterator[slice]:
    return (slice(at, at + rows) for at in range(0, n, rows))

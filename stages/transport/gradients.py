"""The target's potentials from rows that stand for what a model is trained on, and gradients by them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from stages.transport.distances import c_transform, squared_distances
from stages.transport.duals import coprime, transport

if TYPE_CHECKING:
    from stages.vectors import Doubles, Vectors


@dataclass(frozen=True)
class Proxy:
    """Rows that stand for a distribution."""

    rows: Vectors
    """(n, d), in the order of their hash."""
    chosen: Vectors | None = None
    """(k, d) rows that are selected already,"""
    share: float = 0.0
    """and how much of the mass is theirs, in [0, 1)."""


@dataclass(frozen=True)
class Round:
    """What one round decides with."""

    potentials: Doubles
    """(m,) g of the target's atoms."""
    mean: float
    """Of f over the proxy's rows,"""
    rows: int
    """and how many these are."""
    border: float = -math.inf
    """Rows whose gradient is not above it are chosen in this round."""

    def calibrated(self, potentials: Doubles) -> Doubles:
        """(n,) g_i = f_i - mean over j != i of f_j = (f_i - mean f) n / (n - 1), n the proxy's rows; negative is good.

        Over the proxy's own rows the sum is 0. To first order, e of mass moved to row i changes the cost by e g_i.
        """
        return (potentials - self.mean) * (self.rows / max(self.rows - 1, 1))

    def gradients(self, rows: Vectors, atoms: Vectors, columns: int, softness: float) -> Doubles:
        """(n,) calibrated gradients of any rows (n, d), by the c-transform."""
        return self.calibrated(c_transform(rows, atoms, self.potentials, columns, softness))


def learned_round(proxy: Proxy, atoms: Vectors, batches: int, columns: int, softness: float) -> Round:
    """Potentials of the target's atoms (m, d), and the mean of f over the proxy's rows."""
    potentials = target_potentials(proxy, atoms, batches, columns)
    found = c_transform(proxy.rows, atoms, potentials, columns, softness)
    return Round(potentials, math.fsum(found) / len(found), len(found))


def target_potentials(proxy: Proxy, atoms: Vectors, batches: int, columns: int = 1) -> Doubles:
    """(m,) the mean over batches of the proxy, each transported to all atoms, of the atoms' potentials g (mean 0).

    With its c-transform a mean of dual potentials is feasible, so it still bounds the cost of the whole from below.
    """
    found = []
    for rows in np.array_split(proxy.rows, min(batches, len(proxy.rows))):
        rows = rows[: coprime(len(rows), len(atoms))]
        mass = np.full(len(rows), (1 - proxy.share) / len(rows))
        if proxy.chosen is not None:
            rows = np.concatenate([rows, proxy.chosen])
            mass = np.concatenate([mass, np.full(len(proxy.chosen), proxy.share / len(proxy.chosen))])
        found.append(transport(squared_distances(rows, atoms, columns), mass).atoms)
    return np.asarray(np.add.reduce(found) / len(found))

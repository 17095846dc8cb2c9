"""Exact optimal transport between two weighted sets of points, with the potentials of both.

    V = min sum_ij c_ij P_ij  s.t.  P 1 = a,  P^T 1 = b,  P >= 0      =  max <a, f> + <b, g>  s.t.  f_i + g_j <= c_ij

By POT's network simplex (Bonneel et al. 2011). The potentials are tight (f is the c-transform of g) and, where the
transport is not degenerate, unique but for a constant that is set so that the mean of g is 0. Equal weights 1/n and 1/m
are not degenerate iff n and m share no divisor: then no group of rows holds the mass of a group of atoms.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from stages.transport.exact import solve

if TYPE_CHECKING:
    from stages.vectors import Doubles


@dataclass(frozen=True)
class Transport:
    """An optimal transport."""

    value: float
    """V, in the costs' unit."""
    rows: Doubles
    """(n,) f: by how much V grows per unit of mass that comes to a row, up to a constant."""
    atoms: Doubles
    """(m,) g, with mean 0."""


def transport(costs: Doubles, mass: Doubles | None = None) -> Transport:
    """The transport of rows (n,) of `mass` (equal masses by default) to m atoms of equal mass, for costs (n, m).

    Raises:
        CuveeError: it did not finish.
    """
    n, m = costs.shape
    given = np.full(n, 1 / n) if mass is None else mass / math.fsum(mass)
    solution = solve(given, np.full(m, 1 / m), costs)
    atoms = solution.potentials - math.fsum(solution.potentials) / m
    return Transport(solution.value, (costs - atoms).min(axis=1), atoms)


def coprime(rows: int, atoms: int) -> int:
    """The largest number <= rows that shares no divisor with atoms, so that a transport is not degenerate."""
    return next(n for n in range(rows, 0, -1) if math.gcd(n, atoms) == 1)

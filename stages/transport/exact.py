"""The exact transport between weighted points: the linear program itself, by POT's network simplex.

    V = min sum_ij c_ij P_ij  s.t.  P 1 = a,  P^T 1 = b,  P >= 0

(Bonneel et al. 2011). Potentials f, g with f_i + g_j <= c_ij bound it from below, with equality at the optimum.
"""

import os
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from schemas.errors import CuveeError
from stages.vectors import Doubles

Integers = npt.NDArray[np.int64]

PIVOTS = 10_000_000


@dataclass(frozen=True)
class Solution:
    """The optimum and its certificate."""

    value: float
    """V, of moving a mass of 1."""
    potentials: Doubles
    """(m,) g, up to a constant."""


def solve(mass: Doubles, wanted: Doubles, costs: Doubles) -> Solution:
    """Move (n,) to (m,) masses, each > 0 and summing to 1, at costs (n, m).

    Raises:
        CuveeError: it did not finish.
    """
    # POT loads every array library it finds; torch alone would take seconds and 400 MB for nothing.
    os.environ.setdefault("POT_BACKEND_DISABLE_PYTORCH", "1")
    import ot

    _, log = ot.emd(mass, wanted, np.ascontiguousarray(costs), numItermax=PIVOTS, log=True)
    if log["warning"]:
        raise CuveeError(f"the transport of {costs.shape} points did not finish: {log['warning']}; lower `atoms`")
    return Solution(float(log["cost"]), log["v"])


def solve_where_held(masses: Doubles, wanted: Doubles, costs: npt.NDArray[np.floating]) -> Solution:
    """The same for masses >= 0 of any sum: they are scaled to 1, and points without mass take no part.

    The potentials are those of the points that are wanted, in their order.
    """
    rows, columns = np.flatnonzero(masses > 0), np.flatnonzero(wanted > 0)
    held, asked = masses[rows] / masses.sum(), wanted[columns] / wanted.sum()
    return solve(held, asked, costs[np.ix_(rows, columns)].astype(np.float64, copy=False))


def value_on_arcs(
    mass: Doubles, wanted: Doubles, arcs: Integers, costs: Doubles, start: tuple[Doubles, Doubles]
) -> float:
    """V where only some arcs may carry mass: never below V on all of them.

    Args:
        mass: (n,) > 0, summing to 1.
        wanted: (m,) > 0, summing to 1.
        arcs: (k,) numbers row * m + column, distinct; some plan on them must move everything (`corner`).
        costs: (k,)
        start: potentials (n,) and (m,) near the optimum.

    Raises:
        CuveeError: it did not finish.
    """
    os.environ.setdefault("POT_BACKEND_DISABLE_PYTORCH", "1")
    import ot
    from scipy.sparse import coo_matrix

    rows, columns = np.divmod(arcs, len(wanted))
    sparse = coo_matrix((costs, (rows, columns)), (len(mass), len(wanted)))
    _, log = ot.emd(mass, wanted, sparse, numItermax=PIVOTS, log=True, potentials_init=start)
    if log["warning"]:
        raise CuveeError(f"the transport on {len(arcs)} arcs did not finish: {log['warning']}; lower `atoms`")
    return float(log["cost"])


def corner(mass: Doubles, wanted: Doubles) -> Integers:
    """Arcs row * m + column of the north-west corner plan, which moves (n,) to (m,) masses, both summing to 1."""
    ends, cuts = np.cumsum(mass), np.cumsum(wanted)
    starts = np.append(0.0, np.sort(np.concatenate([ends[:-1], cuts[:-1]])))
    rows = np.minimum(np.searchsorted(ends, starts, side="right"), len(mass) - 1)
    columns = np.minimum(np.searchsorted(cuts, starts, side="right"), len(wanted) - 1)
    return np.asarray(np.unique(rows * len(wanted) + columns), np.int64)

"""The exact transport between weighted points: the linear program itself, by POT's network simplex.

    min sum_ab c_ab G_ab  s.t.  sum_b G_ab = a_a,  sum_a G_ab = b_b,  G >= 0

Potentials f, g with f_a + g_b <= c_ab bound it from below, with equality at the optimum (Kantorovich duality).
"""

import os
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from schemas.errors import CuveeError

Doubles = npt.NDArray[np.float64]

_PIVOTS = 10_000_000


@dataclass(frozen=True)
class Transport:
    """The optimum and its certificate."""

    cost: float
    """Of moving a mass of 1."""
    target_potentials: Doubles
    """(b',) g of the target points that hold mass, in their order."""


def transport(masses: Doubles, wanted: Doubles, costs: Doubles) -> Transport:
    """Move masses (m,) >= 0 to `wanted` (b,) >= 0, each scaled to sum to 1, at costs (m, b) >= 0.

    Points without mass take no part.

    Raises:
        CuveeError: it did not finish.
    """
    # POT loads every array library it finds; torch alone would take seconds and 400 MB for nothing.
    os.environ.setdefault("POT_BACKEND_DISABLE_PYTORCH", "1")
    import ot

    rows, columns = np.flatnonzero(masses > 0), np.flatnonzero(wanted > 0)
    between = np.ascontiguousarray(costs[np.ix_(rows, columns)])
    held, asked = masses[rows] / masses.sum(), wanted[columns] / wanted.sum()
    _, log = ot.emd(held, asked, between, numItermax=_PIVOTS, log=True)
    if log["warning"]:
        raise CuveeError(f"the transport of {between.shape} atoms did not finish: {log['warning']}; lower `atoms`")
    return Transport(float(log["cost"]), log["v"])

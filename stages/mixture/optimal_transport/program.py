"""The linear program over (plan, shares), solved by cutting planes with exact transports.

    V(p) = min sum_ab c_ab G_ab  s.t.  sum_b G_ab = p_i w_a (a an atom of source i),  sum_a G_ab = nu_b,  G >= 0

V is convex and piecewise linear in p. Potentials (f, g) with f_a + g_b <= c_ab bound it from below everywhere:
V(p) >= sum_i p_i <w_i, f_i> + <nu, g>, with equality where they are optimal (Kantorovich duality). So: minimise the
bounds known so far (a tiny linear program in p), transport exactly there, add its potentials, until both sides
meet (Benders decomposition, Kelley 1960). It ends at the joint program's optimum with a certified gap, and needs
no m x b plan inside a general solver. Potentials stay valid for other masses on the same atoms, which is
what makes the bootstrap cheap.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from schemas.errors import CuveeError
from stages.mixture.optimal_transport.box import Box
from stages.transport.exact import solve_where_held

Doubles = npt.NDArray[np.float64]

TOLERANCE = 1e-9
"""Relative to 1 + value, with costs in units of their median: when bounds meet, and what counts as a tie."""
MAX_CUTS = 2000
TIE_ROUNDS = 50
RARE = 1e-3
"""Smaller natural shares count as this much when ties are settled, which keeps the numbers well-conditioned."""
_LP_TOLERANCES = {"primal_feasibility_tolerance": 1e-10, "dual_feasibility_tolerance": 1e-10}
_SCALE = 1000.0
"""Shares times this go to the solver, whose tolerances are absolute."""
_NOTHING = 1e-12


@dataclass(frozen=True)
class Masses:
    """What lies on the atoms."""

    sources: Doubles
    """(m,) atom weights, source after source; each source sums to 1."""
    target: Doubles
    """(b,) atom weights of the target, summing to 1."""


@dataclass
class Potentials:
    """Dual-feasible potentials of every transport solved so far, for one cost matrix."""

    costs: npt.NDArray[np.floating]
    """(m, b) >= 0, in units where 1 is a typical cost."""
    sizes: tuple[int, ...]
    """Atoms per source, in the order of the rows."""
    sources: list[Doubles]
    """(m,) each."""
    target: list[Doubles]
    """(b,) each."""

    def copy(self) -> "Potentials":
        """One that can grow without changing this one."""
        return Potentials(self.costs, self.sizes, [*self.sources], [*self.target])

    def distance(self, shares: Doubles, masses: Masses) -> float:
        """V at the given shares (S,), by an exact transport between the atoms that hold mass; keeps its potentials.

        Raises:
            CuveeError: the transport did not finish.
        """
        columns = np.flatnonzero(masses.target > 0)
        found = solve_where_held(np.repeat(shares, self.sizes) * masses.sources, masses.target, self.costs)
        # Made tight by c-transforms, so that they bound V also where an atom held nothing.
        f = (self.costs[:, columns] - found.potentials).min(axis=1)
        self.sources.append(f)
        self.target.append((self.costs - f[:, None]).min(axis=0))
        return found.value

    def slopes(self, masses: Masses) -> Doubles:
        """(cuts, S): V(p) >= slopes @ p for every p on the simplex."""
        starts = np.cumsum((0, *self.sizes[:-1]))
        per_source = np.add.reduceat(np.array(self.sources) * masses.sources, starts, axis=1)
        slopes: Doubles = per_source + (np.array(self.target) @ masses.target)[:, None]
        return slopes


@dataclass(frozen=True)
class Optimum:
    """Where V is smallest."""

    shares: Doubles
    """(S,) on the simplex, within the limits."""
    value: float
    """The objective there: V, or V and a prior's pull."""
    gap: float
    """Certified: no shares within the limits have a value below `value - gap`."""
    slopes: Doubles
    """(S,) dV/dp_i, of the bounds in the mixture that proves the optimum: equal where a share is held by no limit."""


def minimise(potentials: Potentials, masses: Masses, box: Box, natural: Doubles) -> Optimum:
    """The canonical minimiser of V over the box.

    Among minimisers, the one closest to the natural shares (S,), which are > 0 and sum to 1, in the chi-squared sense
    of `_closest`: it is unique, and equal sources share like natural.

    Raises:
        CuveeError: the bounds did not meet within `MAX_CUTS` transports.
    """
    if min(box.upper.sum() - 1, 1 - box.lower.sum()) <= TOLERANCE:  # the only point
        point = _simplex(box.upper if box.upper.sum() <= 1 + TOLERANCE else box.lower)
        value = potentials.distance(point, masses)
        return Optimum(point, value, 0.0, potentials.slopes(masses)[-1])
    if not potentials.sources:
        potentials.distance(natural, masses)  # a first bound; the point itself may be above the limits
    tried, values = [], []
    for _ in range(MAX_CUTS):
        slopes = potentials.slopes(masses)
        shares, bound, parts = lowest_bound(slopes, box)
        tried.append(shares)
        values.append(potentials.distance(shares, masses))
        best = int(np.argmin(values))
        if values[best] - bound <= TOLERANCE * (1 + values[best]):
            found = Optimum(tried[best], values[best], max(0.0, values[best] - bound), parts @ slopes)
            return _canonical(potentials, masses, box, natural, found)
    raise CuveeError(
        f"after {MAX_CUTS} transports the optimum is known only to {min(values) - bound:.3g}; lower `atoms`"
    )


def lowest_bound(slopes: Doubles, box: Box) -> tuple[Doubles, float, Doubles]:
    """The shares where the highest of the bounds is lowest, that bound, and each bound's part in it (summing to 1)."""
    from scipy.optimize import linprog

    cuts, sources = slopes.shape
    result = linprog(
        c=np.append(np.zeros(sources), 1.0),
        A_ub=np.column_stack([slopes, -np.ones(cuts)]),
        b_ub=np.zeros(cuts),
        A_eq=np.append(np.ones(sources), 0.0)[None],
        b_eq=[1.0],
        bounds=[*zip(box.lower, box.upper, strict=True), (None, None)],
        options={"primal_feasibility_tolerance": 1e-10, "dual_feasibility_tolerance": 1e-10},
    )
    if result.status != 0:
        raise CuveeError(f"the mixture's linear program ended without an optimum: {result.message}")
    parts = np.maximum(-result.ineqlin.marginals, 0.0)
    return _simplex(result.x[:-1]), float(result.fun), parts / parts.sum()


def _canonical(potentials: Potentials, masses: Masses, box: Box, natural: Doubles, found: Optimum) -> Optimum:
    """The minimiser closest to natural; if it is not reached in `TIE_ROUNDS`, the equally good one that was found."""
    slack = TOLERANCE * (1 + found.value)
    for _ in range(TIE_ROUNDS):
        shares = _closest(potentials.slopes(masses), found.value + slack, box, natural)
        value = potentials.distance(shares, masses)
        if value <= found.value + 3 * slack:
            return Optimum(shares, value, found.gap + max(0.0, value - found.value), found.slopes)
    return found


def _closest(slopes: Doubles, bound: float, box: Box, natural: Doubles) -> Doubles:
    """The shares p with slopes @ p <= bound in the box where sum (p - natural)^2 / max(natural, RARE) is smallest.

    Least distance programming (Lawson and Hanson, Solving Least Squares Problems, 1974, chapter 23): with
    x = (p - natural) / sqrt(natural), the shortest x with G x >= h is -r / r_last for the residual r of the
    non-negative least squares problem [G h]^T u = (0, ..., 0, 1). x is orthogonal to sqrt(natural), as sum p = 1.
    """
    from scipy.optimize import nnls

    root = np.sqrt(np.maximum(natural, RARE))
    basis = np.linalg.qr(np.column_stack([root, np.eye(len(root))]))[0][:, 1:]
    rows = np.vstack([np.eye(len(root)), -np.eye(len(root)), -slopes]) * root
    least = np.concatenate([box.lower - natural, natural - box.upper, slopes @ natural - bound])
    lengths = np.maximum(np.linalg.norm(rows, axis=1), _NOTHING)  # the constraints are scale-free, the solver is not
    problem = np.vstack([(rows @ basis).T, least]) / lengths
    goal = np.append(np.zeros(len(root) - 1), 1.0)
    multipliers, _ = nnls(problem, goal)
    residual = problem @ multipliers - goal
    return _simplex(np.clip(natural - root * (basis @ residual[:-1]) / residual[-1], box.lower, box.upper))


def _simplex(shares: Doubles) -> Doubles:
    positive = np.where(shares > _NOTHING, shares, 0.0)
    normal: Doubles = positive / positive.sum()
    return normal

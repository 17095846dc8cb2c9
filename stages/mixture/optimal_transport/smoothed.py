"""Entropic duals of the joint problem over plan and shares, maximised by Newton's method on few arcs.

    D(g) = <nu, g> + min_p { sum_i p_i h_i(g) + t KL(p || r) },   h_i(g) = sum_a w_a softmin_eps_b (c_ab - g_b)

over shares p in a box, with softmin_eps_b x_b = -eps log sum_b nu_b exp(-x_b / eps). D is smooth and concave in the
target's potentials g (b,), whose gradient is nu minus the target's marginal of the plan (Cuturi and Peyre,
arXiv:1503.02533); its Hessian is sparse at small eps, since a row then has few arcs that carry mass (Schmitzer,
arXiv:1610.06519; Tang et al., arXiv:2401.12253). Only arcs near a row's cheapest are looked at.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from stages.mixture.optimal_transport.box import Box, Doubles, Flags, divergence, logarithms

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

Costs = npt.NDArray[np.floating]
Integers = npt.NDArray[np.int64]

BLOCK_ENTRIES = 2**22
REACH = 10.0
"""Arcs that cost more than this times eps above the row's cheapest weigh below 5e-5 and are left out."""
_CURVED = 1e-4
"""Arcs that carry less than this times what their row's strongest does are left out of the Hessian."""
_HELD = 1e-7
_DENSE = 0.05
_STEPS = 60
NEAR = 0.7
"""Mass in the wrong place where Newton takes over."""
_SHORTEST = 1e-4
_SHORT = 0.2
_LEAST = 1e-2
_RIDGE = 1e-6


@dataclass(frozen=True)
class Arcs:
    """Possible moves, row by row; each row has at least one."""

    starts: Integers
    """(m,) where each row's arcs begin."""
    rows: Integers
    columns: Integers
    costs: Doubles
    reach: float
    """Every arc this near to its row's cheapest is among them, for the potentials they were chosen by."""


@dataclass(frozen=True)
class Pull:
    """What draws the shares: t KL(p || r)."""

    logs: Doubles
    """(S,) log r."""
    strength: float
    """t > 0."""


@dataclass(frozen=True)
class State:
    """D and what it implies at some g."""

    value: float
    heights: Doubles
    """(S,) h."""
    shares: Doubles
    """(S,) p."""
    free: Flags
    moved: Doubles
    """(arcs,) share of its row's mass that each arc carries."""
    marginal: Doubles
    """(b,) the plan's mass at the target's atoms."""


def near(costs: Costs, g: Doubles, reach: float) -> Arcs:
    """The arcs within `reach` of their row's cheapest c_ab - g_b, for costs (m, b)."""
    found, shift = [], g.astype(costs.dtype)
    for part in parts(costs):
        left = costs[part] - shift
        left -= left.min(axis=1, keepdims=True)
        rows, columns = np.nonzero(left <= reach)
        found.append((rows + part.start, columns))
    rows, columns = (np.concatenate(side) for side in zip(*found, strict=True))
    starts = np.searchsorted(rows, np.arange(len(costs)))
    return Arcs(starts, rows, columns, costs[rows, columns].astype(np.float64), reach)


def parts(costs: Costs) -> list[slice]:
    """Blocks of rows that fit a cache."""
    size = max(1, BLOCK_ENTRIES // costs.shape[1])
    return [slice(start, min(start + size, len(costs))) for start in range(0, len(costs), size)]


@dataclass(frozen=True)
class Smoothed:
    """D for one eps, one set of arcs, one box and one pull."""

    arcs: Arcs
    owners: Integers
    """(m,) the source of each row."""
    weights: Doubles
    """(m,) w; each source's sum to 1."""
    target: Doubles
    """(b,) nu."""
    epsilon: float
    box: Box
    pull: Pull

    def at(self, g: Doubles) -> State:
        """D at g (b,)."""
        arcs = self.arcs
        z = (g[arcs.columns] - arcs.costs) / self.epsilon + logarithms(self.target)[arcs.columns]
        top = np.maximum.reduceat(z, arcs.starts)
        moved = np.exp(z - top[arcs.rows])
        total = np.add.reduceat(moved, arcs.starts)
        moved /= total[arcs.rows]
        f = -self.epsilon * (top + np.log(total))
        heights: Doubles = np.bincount(self.owners, f * self.weights, len(self.box.lower)).astype(np.float64)
        shares, free = self.box.nearest(self.pull.logs - heights / self.pull.strength)
        mass = shares[self.owners] * self.weights
        marginal: Doubles = np.bincount(arcs.columns, moved * mass[arcs.rows], len(g)).astype(np.float64)
        drawn = self.pull.strength * divergence(shares, np.exp(np.maximum(self.pull.logs, -690.0)))
        value = float(self.target @ g + shares @ heights + drawn)
        return State(value, heights, shares, free, moved, marginal)

    def highest(self, g: Doubles, tolerance: float, newton: bool = True) -> tuple[Doubles, State]:
        """g (b,) where the marginal is the target's to `tolerance` (summed), or where no step climbs any further.

        Far from there each entry of g is set by itself (Sinkhorn's step); Newton's steps are for the end of the way.
        """
        state, start, ridge = self.at(g), g, _RIDGE
        for _ in range(_STEPS):
            slope = self.target - state.marginal
            wrong = float(np.abs(slope).sum())
            if wrong <= tolerance or np.ptp(g - start) > self.arcs.reach - REACH * self.epsilon:
                break
            climbed = None
            if newton and wrong < NEAR:
                climbed, ridge = self._newton(g, state, slope, ridge)
            climbed = climbed or self._climb(g, state, slope, self._sinkhorn(state), _SHORTEST)
            if climbed is None:
                break
            g, state = climbed
        return g, state

    def _newton(
        self, g: Doubles, state: State, slope: Doubles, ridge: float
    ) -> tuple[tuple[Doubles, State] | None, float]:
        """A step that climbs, if there is one, and the ridge to go on with (Levenberg and Marquardt).

        Parts of the target between which no row is torn hang together by nothing: the ridge keeps their steps short.
        """
        from scipy.linalg import cho_factor, cho_solve

        curvature, b = self._curvature(state), len(slope)
        curvature += 1 / self.epsilon / b**2  # D does not change along (1, ..., 1)
        plain = np.maximum(self.target, _LEAST / b) / self.epsilon
        while ridge <= 1:
            raised = curvature.copy()
            raised[np.diag_indices(b)] += ridge * plain
            step: Doubles = cho_solve(cho_factor(raised, overwrite_a=True, check_finite=False), slope)
            climbed = self._climb(g, state, slope, step, _SHORT) if np.ptp(step) <= REACH * self.epsilon else None
            if climbed is not None:
                return climbed, max(_RIDGE, ridge / 10)
            ridge *= 10
        return None, _RIDGE

    def _climb(
        self, g: Doubles, state: State, slope: Doubles, direction: Doubles, shortest: float
    ) -> tuple[Doubles, State] | None:
        gain, length = float(slope @ direction), 1.0
        while length > shortest:
            found = self.at(g + length * direction)
            if found.value >= state.value + 1e-3 * length * gain:
                return g + length * direction, found
            length /= 2
        return None

    def _sinkhorn(self, state: State) -> Doubles:
        """What would make each column's marginal right if the rows' potentials and the shares stayed."""
        step: Doubles = self.epsilon * (logarithms(self.target) - logarithms(state.marginal))
        return np.clip(step, -REACH * self.epsilon / 2, REACH * self.epsilon / 2)

    def _curvature(self, state: State) -> Doubles:
        """(b, b) minus the Hessian: diag(P^T m) - P^T diag(m) P over eps, plus what the shares' answer adds over t."""
        from scipy.sparse import csr_matrix

        b, sources = len(self.target), len(self.box.lower)
        mass = state.shares[self.owners] * self.weights
        most = np.maximum.reduceat(state.moved, self.arcs.starts)[self.arcs.rows]
        kept = np.flatnonzero((state.moved > _CURVED * most) & (mass[self.arcs.rows] > _HELD * mass.max()))
        rows, columns, moved = self.arcs.rows[kept], self.arcs.columns[kept], state.moved[kept]
        moved = moved / np.bincount(rows, moved, len(mass))[rows]
        used, rows = np.unique(rows, return_inverse=True)
        plan = csr_matrix((moved * np.sqrt(mass)[used[rows]], (rows, columns)), (len(used), b))
        found: Doubles = _squared(plan) / -self.epsilon
        found[np.diag_indices(b)] += np.bincount(columns, moved * mass[used[rows]], b) / self.epsilon
        if state.free.sum() > 1:
            flat = self.owners[self.arcs.rows] * b + self.arcs.columns
            ends = np.bincount(flat, state.moved * self.weights[self.arcs.rows], sources * b).reshape(sources, b)
            held = state.shares[state.free]
            ends = (ends[state.free] - held @ ends[state.free] / held.sum()) * np.sqrt(held)[:, None]
            found += ends.T @ ends / self.pull.strength
        return found


def _squared(plan: "csr_matrix") -> Doubles:
    """(b, b) plan^T plan."""
    if plan.nnz > _DENSE * plan.shape[0] * plan.shape[1]:
        full = plan.toarray()
        return np.asarray(full.T @ full)
    return np.asarray((plan.T @ plan).toarray())

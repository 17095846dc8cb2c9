"""Exponentiated gradient on dual potentials, with a certificate: for many atoms, and where shares are drawn to a prior.

    p_i  <-  p_i exp(-dV/dp_i / t) / Z,   dV/dp_i = h_i(g), the mean potential of source i (Kivinen and Warmuth, 1997)

with the gradient taken where the step ends (the proximal point method in Kullback-Leibler divergence, Rockafellar
1976), so no step size can overshoot: `smoothed` finds potentials and shares at once. Step by step eps and t shrink.
Limits and the prior's KL(p || q) are part of the step. Any g bounds the optimum from below by its c-transform, a plan
rounded to its margins (Altschuler et al., arXiv:1705.09634) from above: the search ends when both meet.
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from schemas.errors import CuveeError
from stages.mixture.optimal_transport.box import Box, Doubles, divergence, logarithms
from stages.mixture.optimal_transport.smoothed import (
    REACH,
    Arcs,
    Costs,
    Integers,
    Pull,
    Smoothed,
    State,
    cheapest,
    near,
    parts,
)

FIRST = 0.1
"""eps at the start, with costs in units of their median,"""
LAST = 1e-7
"""and where the search gives up."""
SHRINK = 0.5
GAP = 2e-5
"""Relative to the value: when the bounds meet."""
WIDEST_GAP = 1e-4
"""What is accepted where they do not meet before `LAST`."""
_COARSE = (8, 64, 400)
"""Atoms per source of the problems that are solved first where there are many,"""
_COARSE_LAST = (0.03, 0.01, 0.003)
"""and the eps at which each hands over."""
_ROUGH = 0.1
_WARM = 0.02
_NOTHING = 1e-12
_FEW = 2**22
_RARE = 1e-4
_CHEAP = 5.0
_PACE = 5.0
"""t over eps: shares that answer too sharply make the potentials hard to find."""
_SLACK = 2.0
_SELECTIONS = 8


@dataclass(frozen=True)
class Problem:
    """min over p in the box of V(p) + strength KL(p || prior)."""

    costs: Costs
    """(m, b) >= 0, in units where 1 is a typical cost."""
    sizes: tuple[int, ...]
    """Atoms per source, in the order of the rows."""
    weights: Doubles
    """(m,) atom weights; each source sums to 1."""
    target: Doubles
    """(b,) atom weights, > 0, summing to 1."""
    box: Box
    prior: Doubles
    """(S,) > 0, summing to 1; also where the search starts from."""
    strength: float = 0.0

    @property
    def owners(self) -> Integers:
        """(m,) the source of each row."""
        return np.repeat(np.arange(len(self.sizes)), self.sizes)


@dataclass(frozen=True)
class Descent:
    """Where the search ended."""

    shares: Doubles
    """(S,)"""
    value: float
    """An upper bound of V(p) + strength KL(p || prior) there, above it by `gap` at most."""
    gap: float
    """Certified: nothing in the box has a value below `value - gap`."""
    potentials: Doubles
    """(b,) g of the target's atoms."""
    slopes: Doubles
    """(S,) V(q) >= slopes @ q for every q on the simplex, by g; dV/dp_i up to the gap."""
    epsilon: float
    """The last one."""


def descend(problem: Problem, warm: Descent | None = None, tolerance: float = GAP) -> Descent:
    """The optimum to a gap of `tolerance` (relative), from a neighbouring problem's answer if there is one.

    Raises:
        CuveeError: the bounds did not meet.
    """
    found = _descent(problem, warm, tolerance)
    if warm is not None and found.gap > tolerance * found.value + _NOTHING:
        found = _descent(problem, None, tolerance)
    if found.gap > max(tolerance, WIDEST_GAP) * found.value + _NOTHING:
        raise CuveeError(
            f"exponentiated gradient knows the mixture's optimum only to {found.gap:.3g} of {found.value:.3g}; "
            "lower `atoms`"
        )
    return found


def _descent(problem: Problem, warm: Descent | None, tolerance: float) -> Descent:
    g, shares, epsilon = _start(problem, warm)
    best, bound = Descent(shares, np.inf, np.inf, g, g, epsilon), -np.inf
    slopes = _slopes(problem, g)
    while epsilon >= LAST:
        part = _part(problem, shares, slopes, epsilon)
        g, found, plan = _step(part.problem, g, shares[part.sources], epsilon, 1e-2 * min(epsilon, 1e-2))
        shares = np.zeros(len(shares))
        shares[part.sources] = found
        slopes = _slopes(problem, g)
        bound = max(bound, _least(problem, slopes))
        value = _rounded(part.problem, *plan)
        if value < best.value:
            best = Descent(shares, value, value - bound, g, slopes, epsilon)
        if best.value - bound <= tolerance * best.value + _NOTHING:
            break
        epsilon *= SHRINK
    return Descent(best.shares, best.value, max(0.0, best.value - bound), g, slopes, epsilon)


def _start(problem: Problem, warm: Descent | None) -> tuple[Doubles, Doubles, float]:
    """Potentials, shares and eps to begin with: a neighbour's, or those of coarser problems."""
    if warm is not None:
        mixed = 0.99 * warm.shares + 0.01 * problem.prior  # what the neighbour left out may come back
        return warm.potentials, problem.box.nearest(logarithms(mixed))[0], _WARM
    g, shares, epsilon = np.zeros(len(problem.target)), problem.box.nearest(logarithms(problem.prior))[0], FIRST
    for atoms, last in zip(_COARSE, _COARSE_LAST, strict=True):
        if max(problem.sizes) > 2 * atoms:
            g, shares, epsilon = _path(_thinned(problem, atoms), g, shares, epsilon, last)
    return g, shares, epsilon


def _path(problem: Problem, g: Doubles, shares: Doubles, epsilon: float, last: float) -> tuple[Doubles, Doubles, float]:
    while epsilon > last:
        g, shares, _ = _step(problem, g, shares, epsilon, _ROUGH)
        epsilon *= SHRINK
    return g, shares, epsilon


def _step(
    problem: Problem, g: Doubles, shares: Doubles, epsilon: float, tolerance: float
) -> tuple[Doubles, Doubles, tuple[Arcs, State]]:
    """One exponentiated gradient step: new potentials and shares, and the plan that belongs to them."""
    pace = _PACE * epsilon
    total = problem.strength + pace
    logs = (problem.strength * logarithms(problem.prior) + pace * logarithms(shares)) / total
    for _ in range(_SELECTIONS):
        arcs = near(problem.costs, g, REACH * epsilon * _SLACK)
        pull = Pull(logs, total)
        smooth = Smoothed(arcs, problem.owners, problem.weights, problem.target, epsilon, problem.box, pull)
        before, (g, state) = g, smooth.highest(g, tolerance, newton=tolerance < _ROUGH)
        if np.ptp(g - before) <= REACH * epsilon:
            break
    return g, state.shares, (arcs, state)


def _thinned(problem: Problem, atoms: int) -> Problem:
    """Every n-th atom of each source, so that about `atoms` are left."""
    starts = np.cumsum((0, *problem.sizes))
    rows = [np.arange(a, b, max(1, (b - a) // atoms)) for a, b in pairwise(starts)]
    weights = np.concatenate([problem.weights[part] / problem.weights[part].sum() for part in rows])
    sizes = tuple(len(part) for part in rows)
    costs = problem.costs[np.concatenate(rows)]
    return Problem(costs, sizes, weights, problem.target, problem.box, problem.prior, problem.strength)


@dataclass(frozen=True)
class _Part:
    """The problem of some of the sources."""

    problem: Problem
    sources: Integers


def _part(problem: Problem, shares: Doubles, slopes: Doubles, epsilon: float) -> _Part:
    """Sources with a share and those cheap enough to get one; all of them where there are few atoms."""
    everything = np.arange(len(shares))
    if problem.costs.size <= _FEW:
        return _Part(problem, everything)
    level = float((slopes * shares).sum())
    keep = np.flatnonzero((shares > _RARE) | (problem.box.lower > 0) | (slopes <= level + _CHEAP * epsilon))
    rows = np.flatnonzero(np.isin(problem.owners, keep))
    sizes, box = tuple(problem.sizes[i] for i in keep), Box(problem.box.lower[keep], problem.box.upper[keep])
    if box.upper.sum() < 1:
        return _Part(problem, everything)
    found = Problem(
        problem.costs[rows], sizes, problem.weights[rows], problem.target, box, problem.prior[keep], problem.strength
    )
    return _Part(found, keep)


def _slopes(problem: Problem, g: Doubles) -> Doubles:
    f = cheapest(problem.costs, g)
    slopes: Doubles = np.bincount(problem.owners, f * problem.weights, len(problem.sizes)) + problem.target @ g
    return slopes


def _least(problem: Problem, slopes: Doubles) -> float:
    """The smallest value that these slopes allow: a lower bound of the optimum."""
    if not problem.strength:
        return float(slopes @ problem.box.lowest(slopes))
    shares, _ = problem.box.nearest(logarithms(problem.prior) - slopes / problem.strength)
    return float(slopes @ shares) + problem.strength * divergence(shares, problem.prior)


def _rounded(problem: Problem, arcs: Arcs, state: State) -> float:
    """The objective of the plan whose margins are made exact: columns scaled down, what is missing moved pro rata."""
    mass = state.shares[problem.owners] * problem.weights
    moved = state.moved * mass[arcs.rows]
    moved *= np.minimum(1.0, problem.target / np.maximum(state.marginal, 1e-300))[arcs.columns]
    rows = np.maximum(mass - np.bincount(arcs.rows, moved, len(mass)), 0.0)
    columns = np.maximum(problem.target - np.bincount(arcs.columns, moved, len(problem.target)), 0.0)
    value = float(moved @ arcs.costs)
    if (missing := columns.sum()) > 0:
        held = np.flatnonzero(rows > 0)
        value += float(rows[held] @ (_times(problem.costs, held, columns) / missing))
    return value + (problem.strength and problem.strength * divergence(state.shares, problem.prior))


def _times(costs: Costs, rows: Integers, vector: Doubles) -> Doubles:
    narrow = vector.astype(costs.dtype)
    taken = [costs[rows[part]] @ narrow for part in parts(costs[: len(rows)])]
    return np.concatenate(taken).astype(np.float64) if taken else np.zeros(0)

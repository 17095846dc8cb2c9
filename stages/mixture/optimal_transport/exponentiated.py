"""Exponentiated gradient on dual potentials, with a certificate: for many atoms, and where shares are drawn to a prior.

    p_i  <-  p_i exp(-dV/dp_i / t) / Z,   dV/dp_i = h_i(g), the mean potential of source i (Kivinen and Warmuth, 1997)

with the gradient taken where the step ends (the proximal point method in Kullback-Leibler divergence, Rockafellar
1976), so no step size can overshoot: `smoothed` finds potentials and shares at once. Step by step eps and t shrink.
Limits and the prior's KL(p || q) are part of the step. The search ends when the bounds of `problem` meet; with many
atoms, `many_atoms` leads to the potentials.
"""

import numpy as np

from schemas.errors import CuveeError
from stages.mixture.optimal_transport.box import Doubles, logarithms
from stages.mixture.optimal_transport.many_atoms import MANY, descend_many
from stages.mixture.optimal_transport.problem import Descent, Problem, least, part_of, rounded, slopes_at, thinned
from stages.mixture.optimal_transport.smoothed import REACH, Arcs, Pull, Smoothed, State, near

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
_PACE = 5.0
"""t over eps: shares that answer too sharply make the potentials hard to find."""
_SLACK = 2.0
_SELECTIONS = 8


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
    if problem.costs.size > MANY:
        return descend_many(problem, warm, tolerance)
    g, shares, epsilon = _start(problem, warm)
    best, bound = Descent(shares, np.inf, np.inf, g, g, epsilon), -np.inf
    slopes = slopes_at(problem, g)
    while epsilon >= LAST:
        part = part_of(problem, shares, slopes, epsilon)
        g, found, plan = _step(part.problem, g, shares[part.sources], epsilon, 1e-2 * min(epsilon, 1e-2))
        shares = np.zeros(len(shares))
        shares[part.sources] = found
        slopes = slopes_at(problem, g)
        bound = max(bound, least(problem, slopes))
        value = rounded(part.problem, *plan)
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
            g, shares, epsilon = _path(thinned(problem, atoms), g, shares, epsilon, last)
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

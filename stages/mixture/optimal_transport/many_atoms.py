"""The same optimum where there are many atoms: quasi-Newton steps on few arcs, from coarse to fine.

Newton's method on the dual (`smoothed`) needs a curvature of the target's atoms squared at every step and stalls where
tens of thousands of rows decide it. Here the dual of one eps is climbed by quasi-Newton steps (`quasi_newton`) on the
cheapest arcs (`few_arcs`). After some steps arcs are chosen anew and the shares move on, which is the exponentiated
gradient step of `exponentiated`. First a few atoms of each source, then all of them, with ever smaller eps; both bounds
of the optimum are measured on all arcs.
"""

from dataclasses import dataclass, replace

import numpy as np

from stages.mixture.optimal_transport.box import Box, Doubles, divergence, logarithms
from stages.mixture.optimal_transport.few_arcs import few, joined
from stages.mixture.optimal_transport.problem import Descent, Problem, least, part_of, rounded, slopes_at, thinned
from stages.mixture.optimal_transport.quasi_newton import Dual, climbed
from stages.mixture.optimal_transport.smoothed import Arcs, Pull, Smoothed, State
from stages.transport.exact import corner, value_on_arcs

MANY = 2**24
"""Costs from which on this is faster than Newton's method."""
PACE = 5.0
"""t over eps, as in `exponentiated`."""
_MIXED = 0.05
"""Share of an even mixture in what the next step starts from: a source that has lost everything may come back."""
_NEAR = 8.0
"""A source's slope may be this much further above the level than Newton's method lets it: a round moves more, and one
that was left out and falls below the level spoils the lower bound."""
_KEPT = 8.0
"""Arcs of the last round that lie within this times eps of their row's cheapest stay."""
_WORTH = 3e-3
"""When the bounds are this near, a plan that is transported exactly is worth its seconds."""


@dataclass(frozen=True)
class Leg:
    """A stretch of the way: so many rounds at one eps."""

    atoms: int
    """Of each source; 0: all."""
    epsilon: float
    arcs: int
    """Per row, on average."""
    steps: int
    rounds: int
    reach: float
    """How far a potential may move in a round, over eps."""


COARSE = (
    Leg(8, 0.1, 2000, 20, 1, 50),
    Leg(8, 0.03, 2000, 20, 1, 50),
    Leg(32, 0.015, 200, 40, 2, 60),
    Leg(64, 0.007, 64, 60, 2, 60),
    Leg(250, 0.004, 24, 80, 2, 100),
    Leg(250, 0.001, 10, 150, 3, 200),
)
FINE = (
    Leg(0, 1e-3, 8, 100, 3, 100),
    Leg(0, 5e-4, 8, 200, 3, 100),
    Leg(0, 2.5e-4, 8, 300, 2, 200),
    Leg(0, 1e-4, 8, 400, 3, 1000),
    Leg(0, 4e-5, 8, 400, 3, 1000),
    Leg(0, 1.6e-5, 8, 400, 3, 200),
)


def next_pull(shares: Doubles, box: Box, prior: Doubles, strength: float, epsilon: float) -> Pull:
    """What draws the next shares: the last ones, and the prior where there is a strength."""
    pace = PACE * epsilon
    last = (1 - _MIXED) * shares + _MIXED / len(shares) * (box.upper > 0)
    logs = (strength * logarithms(prior) + pace * logarithms(last)) / (strength + pace)
    return Pull(logs, strength + pace)


def descend_many(problem: Problem, warm: Descent | None, tolerance: float) -> Descent:
    """As near to the optimum as `FINE` leads, or to a gap of `tolerance` (relative), whichever is first."""
    g, shares = np.zeros(len(problem.target)), problem.box.nearest(logarithms(problem.prior))[0]
    if warm is not None:
        g, shares = warm.potentials, problem.box.nearest(logarithms((1 - _MIXED) * warm.shares + _MIXED * shares))[0]
    else:
        for leg in (leg for leg in COARSE if max(problem.sizes) >= 2 * leg.atoms):
            g, shares, _ = _walked(thinned(problem, leg.atoms), g, shares, leg)
    slopes = slopes_at(problem, g)
    best, bound = Descent(shares, np.inf, np.inf, g, slopes, FINE[0].epsilon), -np.inf
    for leg in FINE:
        part = part_of(problem, shares, slopes, _NEAR * leg.epsilon)
        g, found, plan = _walked(part.problem, g, shares[part.sources], leg)
        shares = np.zeros(len(shares))
        shares[part.sources] = found
        slopes = slopes_at(problem, g)
        bound = max(bound, least(problem, slopes))
        value = rounded(part.problem, *plan)
        if bound * (1 + tolerance) < value < bound * (1 + _WORTH):  # what rounding adds is most of what is left
            value = min(value, transported(part.problem, plan[0], g, found))
        if value < best.value:
            best = Descent(shares, value, np.inf, g, slopes, leg.epsilon)
        if best.value - bound <= tolerance * best.value:
            break
    return replace(best, gap=max(0.0, best.value - bound), potentials=g, slopes=slopes)


def transported(problem: Problem, arcs: Arcs, g: Doubles, shares: Doubles) -> float:
    """The objective at shares (S,), of the best plan on some arcs: an upper bound."""
    mass = shares[problem.owners] * problem.weights
    rows, width = np.flatnonzero(mass > 0), len(problem.target)
    mass = mass[rows] / mass[rows].sum()
    kept = arcs.rows[np.isin(arcs.rows, rows)], arcs.columns[np.isin(arcs.rows, rows)]
    flat = np.union1d(np.searchsorted(rows, kept[0]) * width + kept[1], corner(mass, problem.target))
    costs = problem.costs[rows[flat // width], flat % width].astype(np.float64)
    f = (problem.costs[rows] - g.astype(problem.costs.dtype)).min(axis=1).astype(np.float64)
    value = value_on_arcs(mass, problem.target, flat, costs, (f, g))
    return value + (problem.strength and problem.strength * divergence(shares, problem.prior))


def _walked(problem: Problem, g: Doubles, shares: Doubles, leg: Leg) -> tuple[Doubles, Doubles, tuple[Arcs, State]]:
    """Potentials and shares at the end of a leg, and the plan that belongs to them."""
    arcs, count = few(problem.costs, g, leg.arcs), 0
    while True:
        pull = next_pull(shares, problem.box, problem.prior, problem.strength, leg.epsilon)
        dual = Dual(arcs, problem.owners, problem.weights, problem.target, leg.epsilon, pull)
        g = climbed(dual, g, problem.box, leg.steps, leg.reach * leg.epsilon)
        smooth = Smoothed(arcs, problem.owners, problem.weights, problem.target, leg.epsilon, problem.box, pull)
        state = smooth.at(g)
        shares, count = state.shares, count + 1
        if count == leg.rounds:
            return g, shares, (arcs, state)
        arcs = joined(problem.costs, few(problem.costs, g, leg.arcs), arcs, g, _KEPT * leg.epsilon)

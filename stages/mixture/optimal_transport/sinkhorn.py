"""The debiased Sinkhorn divergence to the target, minimised over the shares.

    S(p) = OT_eps(a, nu) - OT_eps(a, a) / 2 - OT_eps(nu, nu) / 2,   a = sum_i p_i mu_i

with OT_eps(a, b) = min_P <c, P> + eps KL(P || a x b) (Feydy et al., arXiv:1810.08278): 0 iff a = nu, and convex in a.
dS/dp_i is the mean over source i of the cross potential minus the potential of a with itself. As S is convex, its
tangents bound it from below (Kelley 1960): the gap is certified. The self term needs all costs between source atoms, so
the number of atoms is bounded.
"""

from dataclasses import dataclass, replace

import numpy as np

from schemas.errors import CuveeError
from stages.mixture.optimal_transport.box import Box, Doubles, divergence, logarithms
from stages.mixture.optimal_transport.problem import Descent, Problem
from stages.mixture.optimal_transport.program import lowest_bound
from stages.mixture.optimal_transport.smoothed import Arcs, Pull, Smoothed, near

MOST_ATOMS = 8192
GAP = 1e-4
"""Relative to the value: where the descent ends. Below `FLOOR` the value counts as this much."""
FLOOR = 1e-2
STEPS = 200
_ROUNDS = 2000
_SETTLED = 1e-9
_ROUGH = 1e-2


@dataclass(frozen=True)
class Debiased:
    """min over p in the box of S(p) + strength KL(p || prior)."""

    problem: Problem
    within: Doubles
    """(m, m) costs between source atoms, in the unit of `problem.costs`."""
    within_target: Doubles
    """(b, b)"""
    epsilon: float

    def __post_init__(self) -> None:
        if len(self.within) > MOST_ATOMS:
            raise CuveeError(
                f"the Sinkhorn divergence of {len(self.within)} source atoms needs {len(self.within)} x "
                f"{len(self.within)} costs, expected at most {MOST_ATOMS} atoms; lower `atoms` or use divergence: exact"
            )

    def value(self, shares: Doubles) -> float:
        """S + strength KL at the given shares (S,)."""
        return self._objective(shares, self._at(shares, _Start.of(self))[0])

    def descend(self, warm: Descent | None = None) -> Descent:
        """The optimum: the next point lies half way from the best to where the tangents known so far are lowest.

        Raises:
            CuveeError: the bounds did not meet.
        """
        problem, start, tangents = self.problem, _Start.of(self), []
        first = problem.prior if warm is None else 0.9 * warm.shares + 0.1 * problem.prior
        shares = problem.box.nearest(logarithms(first))[0]
        best = Descent(shares, np.inf, np.inf, shares, shares, self.epsilon)
        for _ in range(STEPS):
            value, slopes, start = self._at(shares, start)
            objective = self._objective(shares, value)
            tangents.append(self._tangent(shares, objective, slopes))
            if objective < best.value:
                best = Descent(shares, objective, np.inf, start.cross, slopes, self.epsilon)
            lowest, bound, _ = lowest_bound(np.array(tangents), problem.box)
            gap = max(0.0, best.value - bound)
            if gap <= GAP * max(best.value, FLOOR):
                return replace(best, gap=gap)
            shares = (best.shares + lowest) / 2
        raise CuveeError(f"the Sinkhorn divergence is known only to {gap:.3g} of {best.value:.3g}; raise `epsilon`")

    def _tangent(self, shares: Doubles, objective: float, slopes: Doubles) -> Doubles:
        """(S,) such that objective(q) >= tangent @ q on the simplex, with equality at the shares."""
        problem = self.problem
        drawn = problem.strength * (logarithms(shares) - logarithms(problem.prior))
        tangent = slopes + drawn
        moved: Doubles = tangent + (objective - tangent @ shares)
        return moved

    def _objective(self, shares: Doubles, value: float) -> float:
        return value + self.problem.strength * divergence(shares, self.problem.prior)

    def _at(self, shares: Doubles, start: "_Start") -> tuple[float, Doubles, "_Start"]:
        """S, its gradient (S,) up to a constant that makes it exact on the simplex, and potentials to go on from."""
        problem = self.problem
        pull = Pull(np.zeros(len(shares)), 1.0)
        smooth = Smoothed(
            start.arcs, problem.owners, problem.weights, problem.target, self.epsilon, Box.point(shares), pull
        )
        g, state = smooth.highest(start.cross, _SETTLED)
        mass = shares[problem.owners] * problem.weights
        f = self_potential(self.within, mass, self.epsilon, start.own)
        own = np.bincount(problem.owners, f * problem.weights, len(shares))
        cross = float(problem.target @ g + shares @ state.heights)
        value = cross - float(mass @ f) - start.constant
        slopes = state.heights - own
        slopes += value - slopes @ shares
        return value, slopes, _Start(start.arcs, g, f, start.constant)


@dataclass(frozen=True)
class _Start:
    """Potentials to start from."""

    arcs: Arcs
    cross: Doubles
    own: Doubles
    constant: float
    """OT_eps(nu, nu) / 2."""

    @staticmethod
    def of(debiased: Debiased) -> "_Start":
        problem = debiased.problem
        g = np.zeros(len(problem.target))
        own = self_potential(debiased.within_target, problem.target, debiased.epsilon, g)
        arcs = near(problem.costs, g, np.inf)
        shares, pull = problem.box.nearest(logarithms(problem.prior))[0], Pull(np.zeros(len(problem.prior)), 1.0)
        for epsilon in debiased.epsilon * 2.0 ** np.arange(6, 0, -1):  # from smooth to sharp
            smooth = Smoothed(arcs, problem.owners, problem.weights, problem.target, epsilon, Box.point(shares), pull)
            g, _ = smooth.highest(g, _ROUGH)
        return _Start(arcs, g, np.zeros(len(problem.weights)), float(problem.target @ own))


def self_potential(costs: Doubles, mass: Doubles, epsilon: float, start: Doubles) -> Doubles:
    """(n,) f = -eps log sum_b a_b exp((f_b - c_ab) / eps), everywhere, for masses a (n,) and symmetric costs (n, n).

    Averaged steps f <- (f + T f) / 2 converge fast (Feydy et al., section 3.1). OT_eps(a, a) = 2 <a, f>.
    """
    held = np.flatnonzero(mass > 0)
    logs, near_by, f = np.log(mass[held]), costs[np.ix_(held, held)], start[held]
    for _ in range(_ROUNDS):
        new = (f + _softest(near_by, logs + f / epsilon, epsilon)) / 2
        moved, f = float(np.abs(new - f).max()), new
        if moved <= _SETTLED:
            break
    return _softest(costs[:, held], logs + f / epsilon, epsilon)


def _softest(costs: Doubles, logs: Doubles, epsilon: float) -> Doubles:
    z = logs - costs / epsilon
    top = z.max(axis=1)
    z -= top[:, None]
    np.exp(z, out=z)
    soft: Doubles = -epsilon * (top + np.log(z.sum(axis=1)))
    return soft

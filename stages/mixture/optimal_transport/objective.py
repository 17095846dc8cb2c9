"""The three ways to the optimum behind one contract: cutting planes, exponentiated gradient, Sinkhorn's divergence."""

from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from stages.mixture.optimal_transport.box import Box, Doubles, divergence
from stages.mixture.optimal_transport.exponentiated import descend
from stages.mixture.optimal_transport.problem import Descent, Problem
from stages.mixture.optimal_transport.program import Masses, Optimum, Potentials, minimise
from stages.mixture.optimal_transport.sinkhorn import Debiased

EXACT = 2**23
"""Costs of a transport that the network simplex solves in seconds; larger ones are known to the descent's gap."""


class Objective(Protocol):
    """What is minimised over the shares."""

    def best(self, box: Box) -> Optimum:
        """The minimiser within the box."""

    def value(self, shares: Doubles) -> float:
        """The objective at shares (S,)."""

    def resampled(self, masses: Masses) -> "Objective":
        """The same with other masses on the same atoms; what is found there is forgotten here."""


@dataclass(frozen=True)
class Program:
    """V, exactly, by cutting planes."""

    potentials: Potentials
    masses: Masses
    natural: Doubles

    def best(self, box: Box) -> Optimum:
        """Canonical, certified to 1e-9."""
        return minimise(self.potentials, self.masses, box, self.natural)

    def value(self, shares: Doubles) -> float:
        """By an exact transport."""
        return self.potentials.distance(shares, self.masses)

    def resampled(self, masses: Masses) -> "Program":
        """Starts from the potentials there are."""
        return Program(self.potentials.copy(), masses, self.natural)


@dataclass
class Gradient:
    """V and the prior's pull, by exponentiated gradient on potentials."""

    problem: Problem
    warm: Descent | None = None

    def best(self, box: Box) -> Optimum:
        """Certified to the gap of `descend`."""
        found = descend(replace(self.problem, box=box), self.warm)
        if self.warm is None:
            self.warm = found
        return _optimum(found)

    def value(self, shares: Doubles) -> float:
        """By an exact transport, or to the gap of `descend` where that would take too long."""
        problem, held = self.problem, int(np.repeat(shares > 0, self.problem.sizes).sum())
        if held * len(problem.target) > EXACT:
            return descend(replace(problem, box=Box.point(shares)), self.warm).value
        masses = Masses(problem.weights, problem.target)
        exact = Potentials(problem.costs, problem.sizes, [], []).distance(shares, masses)
        return exact + problem.strength * divergence(shares, problem.prior)

    def resampled(self, masses: Masses) -> "Gradient":
        """Starts from the first answer."""
        return Gradient(_with(self.problem, masses), _seen(self.warm, masses))


@dataclass
class Divergence:
    """The debiased Sinkhorn divergence and the prior's pull."""

    debiased: Debiased
    warm: Descent | None = None

    def best(self, box: Box) -> Optimum:
        """Certified by the linearisation there."""
        found = replace(self.debiased, problem=replace(self.debiased.problem, box=box)).descend(self.warm)
        if self.warm is None:
            self.warm = found
        return _optimum(found)

    def value(self, shares: Doubles) -> float:
        """Potentials settled to 1e-9."""
        return self.debiased.value(shares)

    def resampled(self, masses: Masses) -> "Divergence":
        """Starts from the first answer."""
        kept = np.flatnonzero(masses.target > 0)
        within = self.debiased.within_target[np.ix_(kept, kept)]
        known = replace(self.debiased, problem=_with(self.debiased.problem, masses), within_target=within)
        return Divergence(known, _seen(self.warm, masses))


def _with(problem: Problem, masses: Masses) -> Problem:
    kept = np.flatnonzero(masses.target > 0)
    costs = problem.costs if len(kept) == len(problem.target) else problem.costs[:, kept]
    return replace(problem, costs=costs, weights=masses.sources, target=masses.target[kept])


def _seen(warm: Descent | None, masses: Masses) -> Descent | None:
    return warm and replace(warm, potentials=warm.potentials[masses.target > 0])


def _optimum(found: Descent) -> Optimum:
    return Optimum(found.shares, found.value, found.gap, found.slopes)

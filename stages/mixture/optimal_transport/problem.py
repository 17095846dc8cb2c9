"""What is minimised over the shares, where a search for it ended, and the bounds that certify how good that is.

    min over p in the box of V(p) + strength KL(p || prior),   V(p) = OT(sum_i p_i mu_i, nu)

Any g bounds the optimum from below by its c-transform, a plan rounded to its margins (Altschuler et al.,
arXiv:1705.09634) from above.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeVar

import numpy as np

from stages.mixture.optimal_transport.box import Box, Doubles, divergence, logarithms
from stages.mixture.optimal_transport.smoothed import Arcs, Costs, Integers, State, parts

Result = TypeVar("Result")
THREADS = 2
"""Blocks of rows are independent of each other, so their number decides no bit."""
_FEW = 2**22
_RARE = 1e-4
_CHEAP = 5.0


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


def thinned(problem: Problem, atoms: int) -> Problem:
    """Every n-th atom of each source, so that about `atoms` are left."""
    starts = np.cumsum((0, *problem.sizes))
    rows = [np.arange(a, b, max(1, (b - a) // atoms)) for a, b in pairwise(starts)]
    weights = np.concatenate([problem.weights[part] / problem.weights[part].sum() for part in rows])
    sizes = tuple(len(part) for part in rows)
    costs = problem.costs[np.concatenate(rows)]
    return Problem(costs, sizes, weights, problem.target, problem.box, problem.prior, problem.strength)


@dataclass(frozen=True)
class Part:
    """The problem of some of the sources."""

    problem: Problem
    sources: Integers


def part_of(problem: Problem, shares: Doubles, slopes: Doubles, epsilon: float) -> Part:
    """Sources with a share and those cheap enough to get one; all of them where there are few atoms."""
    everything = np.arange(len(shares))
    if problem.costs.size <= _FEW:
        return Part(problem, everything)
    level = float((slopes * shares).sum())
    keep = np.flatnonzero((shares > _RARE) | (problem.box.lower > 0) | (slopes <= level + _CHEAP * epsilon))
    rows = np.flatnonzero(np.isin(problem.owners, keep))
    sizes, box = tuple(problem.sizes[i] for i in keep), Box(problem.box.lower[keep], problem.box.upper[keep])
    if box.upper.sum() < 1:
        return Part(problem, everything)
    found = Problem(
        problem.costs[rows], sizes, problem.weights[rows], problem.target, box, problem.prior[keep], problem.strength
    )
    return Part(found, keep)


def blockwise(costs: Costs, work: Callable[[slice], Result]) -> list[Result]:
    """What `work` finds in each block of rows, in their order."""
    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(work, parts(costs)))


def cheapest(costs: Costs, g: Doubles) -> Doubles:
    """(m,) f_a = min_b c_ab - g_b, the c-transform."""
    shift = g.astype(costs.dtype)
    return np.concatenate(blockwise(costs, lambda part: (costs[part] - shift).min(axis=1))).astype(np.float64)


def slopes_at(problem: Problem, g: Doubles) -> Doubles:
    """(S,) V(q) >= slopes @ q for every q on the simplex, by the c-transform of g (b,)."""
    f = cheapest(problem.costs, g)
    slopes: Doubles = np.bincount(problem.owners, f * problem.weights, len(problem.sizes)) + problem.target @ g
    return slopes


def least(problem: Problem, slopes: Doubles) -> float:
    """The smallest value that these slopes allow: a lower bound of the optimum."""
    if not problem.strength:
        return float(slopes @ problem.box.lowest(slopes))
    shares, _ = problem.box.nearest(logarithms(problem.prior) - slopes / problem.strength)
    return float(slopes @ shares) + problem.strength * divergence(shares, problem.prior)


def rounded(problem: Problem, arcs: Arcs, state: State) -> float:
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

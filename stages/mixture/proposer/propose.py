"""From a program to the mixture it proposes, with a proof of how good that is where the laws allow one."""

from dataclasses import dataclass

import numpy as np

from schemas.errors import CuveeError
from stages.mixture.proposer.box import Doubles
from stages.mixture.proposer.certificate import lower_bound
from stages.mixture.proposer.collision import collision
from stages.mixture.proposer.descent import descend, lowest_excess
from stages.mixture.proposer.program import Program
from stages.mixture.proposer.simulated import ALLOWED, CANDIDATES, candidates, search

STARTS = 8
"""Simulated mixtures that descent begins from where a law has several valleys."""
ENOUGH = 1e-7
"""A gap that another start need not close."""
PULLS = (0.0, *(1e-6 * 2.0**power for power in range(14)))


@dataclass(frozen=True, eq=False)
class Proposal:
    """A point on the simplex within bounds and ceilings."""

    shares: Doubles
    """(S,) of the sources, in millionths where the bounds allow that."""
    value: float
    """The objective there."""
    gap: float | None
    """Certified: no allowed shares have an objective below `value - gap`; None where a law is not convex."""
    method: str
    """How it was found, in words."""


def propose(program: Program, seed: int = 0, count: int = CANDIDATES, points: Doubles | None = None) -> Proposal:
    """The best shares within bounds and ceilings.

    Convex and smooth: descent, with a certificate. Smooth alone: descent from the best of `count` simulated mixtures.
    Otherwise their average. `points` (n, k) are simulated mixtures that somebody drew before.

    Raises:
        CuveeError: nothing within the bounds keeps all ceilings; says which collide.
    """
    if program.convex and program.smooth:
        return _certified(program)
    if points is None:
        points = candidates(program.box, program.prior, seed, count)
    found = search(program, points)
    if found is None:
        raise CuveeError(
            f"none of {len(points)} simulated mixtures within the limits keeps {_listed(program)} at or below the "
            "reference; raise the limits, or leave out `no_worse_than`"
        )
    if not program.smooth:
        method = f"mean of the best {len(found.ranked)} of {len(points)} simulated mixtures"
        return _finished(program, found.average, found.ranked[0], method, None)
    starts = [found.average, *found.ranked[:STARTS]]
    ends = [point for point in (*descend(program, starts), *starts) if _keeps(program, point)]
    best = min(ends, key=lambda point: _value(program, point))
    return _finished(program, best, found.ranked[0], f"descent from {len(starts)} starts", None)


def _certified(program: Program) -> Proposal:
    pull = program.prior / program.prior.sum()
    starts = [program.box.nearest(pull), program.box.nearest(np.full(len(pull), 1 / len(pull)))]
    safe = starts[0]
    if program.ceilings:
        safe = lowest_excess(program, starts)
        if not _keeps(program, safe):
            raise CuveeError(collision(program, safe))
    best, bound = safe, -np.inf
    for point in descend(program, starts):
        if _keeps(program, point) and _value(program, point) < _value(program, best):
            best = point
        bound = max(bound, lower_bound(program, point))  # it holds wherever it was taken
        if _value(program, best) - bound <= ENOUGH:
            break
    return _finished(program, best, safe, "descent", bound)


def _value(program: Program, point: Doubles) -> float:
    return float(program.value(point[None])[0])


def _finished(program: Program, point: Doubles, safe: Doubles, method: str, bound: float | None) -> Proposal:
    """Rounded to the grid; moved a little toward a point that is safely below the ceilings if rounding needs it."""
    for pull in PULLS:
        grid = program.box.rounded((1 - pull) * point + pull * safe)
        if _keeps(program, grid):
            point = grid
            break
    value = _value(program, point)
    shares = program.basis @ point
    return Proposal(shares, value, None if bound is None else max(0.0, value - bound), method)


def _keeps(program: Program, point: Doubles) -> bool:
    return bool(program.excess(point[None]).max(initial=-np.inf) <= ALLOWED)


def _listed(program: Program) -> str:
    return ", ".join(f"`{metric.name}`" for metric in program.ceilings)

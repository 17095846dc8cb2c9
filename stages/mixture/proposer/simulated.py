"""Proposals for laws without slopes or with many valleys: simulated mixtures, the best of which are averaged.

RegMix's search ("Data Mixture as Regression", arXiv:2407.01492): many Dirichlet draws around the prior, tempered so
that small sources are tried too, at strengths from sparse to even; predict all, average the best 128, which steps like
those of a tree do not decide then. Here every draw is moved inside the bounds, and those above a ceiling are left out.
Nothing is certified: a better mixture that was not simulated may exist.
"""

from dataclasses import dataclass

import numpy as np

from stages.mixture.proposer.box import Box, Doubles
from stages.mixture.proposer.program import Program

CANDIDATES = 100_000
BEST = 128
TEMPERATURE = 0.5
STRENGTHS = (0.1, 5.0)
LEVELS = 16
BLOCK = 20_000
_HALVINGS = 60
ALLOWED = 1e-6
"""How far a metric may be above its ceiling, in its scale: what rounding shares to millionths costs."""


@dataclass(frozen=True, eq=False)
class Search:
    """What was found among simulated mixtures."""

    ranked: Doubles
    """(b, k) the best allowed ones, at most `BEST`, best first."""
    average: Doubles
    """(k,) their mean, or the best one where the mean is above a ceiling."""


def candidates(box: Box, prior: Doubles, seed: int, count: int = CANDIDATES) -> Doubles:
    """(count, k) Dirichlet draws around the prior, inside the bounds; half of them around equal shares."""
    rng = np.random.default_rng([seed, len(prior), count])
    tempered = np.maximum(prior, 1e-12) ** TEMPERATURE
    centres = (tempered / tempered.sum(), np.full(len(prior), 1 / len(prior)))
    most = max(STRENGTHS[1], float(len(prior)))
    levels = [(c, s) for s in np.geomspace(STRENGTHS[0], most, LEVELS // 2) for c in centres]
    sizes = np.diff(np.linspace(0, count, len(levels) + 1).astype(int))
    drawn = [rng.dirichlet(s * c, size) for (c, s), size in zip(levels, sizes, strict=True)]
    points = np.concatenate(drawn)
    return _inside(box, np.where(np.isfinite(points), points, 1 / len(prior)))


def _inside(box: Box, points: Doubles) -> Doubles:
    """The closest points of the box; those that lie inside stay as they are."""
    outside = ((points < box.lower) | (points > box.upper)).any(axis=1)
    moved = points[outside]
    low = (box.lower - moved).min(axis=1, keepdims=True, initial=0.0)
    high = (box.upper - moved).max(axis=1, keepdims=True, initial=0.0)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        small = np.clip(moved + middle, box.lower, box.upper).sum(axis=1, keepdims=True) < 1
        low, high = np.where(small, middle, low), np.where(small, high, middle)
    points = points.copy()
    points[outside] = np.clip(moved + high, box.lower, box.upper)
    return points


def search(program: Program, points: Doubles) -> Search | None:
    """The best of the points (n, k); None where all are above a ceiling. Ties go to the one that comes first."""
    blocks = np.array_split(points, max(1, len(points) // BLOCK))
    values = np.concatenate([program.value(block) for block in blocks])
    excess = np.concatenate([program.excess(block).max(axis=1, initial=-np.inf) for block in blocks])
    allowed = np.flatnonzero(excess <= ALLOWED)
    if not allowed.size:
        return None
    ranked = points[allowed[np.argsort(values[allowed], kind="stable")[:BEST]]]
    average = program.box.nearest(ranked.mean(axis=0))
    above = program.excess(average[None]).max(initial=-np.inf) > ALLOWED
    return Search(ranked, ranked[0] if above else average)

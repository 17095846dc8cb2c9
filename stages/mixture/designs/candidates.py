"""Mixtures a design may choose from: corners of the region, their midpoints, and points spread evenly inside."""

from itertools import combinations

import numpy as np

from stages.mixture.designs.region import Doubles, Region, distinct, noise

POINTS = 2048
"""Inside the region; a power of two, as Sobol's sequence likes it."""
MOST_PAIRED = 64
"""Corners up to which all midpoints are taken."""


def candidates(region: Region, seed: int) -> Doubles:
    """(n, S) distinct mixtures within the bounds: prior and uniform first, then corners, midpoints, inner points."""
    corners = region.corners(seed)
    pairs = list(combinations(range(len(corners)), 2)) if len(corners) <= MOST_PAIRED else []
    midpoints = [corners[[left, right]].mean(axis=0) for left, right in pairs]
    return distinct(np.vstack([region.anchors(), corners, *midpoints, region.within(even_points(region.size, seed))]))


def even_points(size: int, seed: int) -> Doubles:
    """(POINTS, S) of the whole simplex, of low discrepancy: scrambled Sobol numbers u as -log u over their sum.

    Exponential numbers over their sum are uniform on the simplex (Devroye, 1986, chapter V.4).
    """
    from scipy.stats.qmc import Sobol

    drawn = Sobol(size, rng=noise(seed, "even points")).random(POINTS)
    lengths = -np.log(np.clip(drawn, 1e-12, 1 - 1e-12))
    points: Doubles = lengths / lengths.sum(axis=1, keepdims=True)
    return points

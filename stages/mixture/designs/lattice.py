"""Simplex lattice {S, m} (Scheffe, 1958, "Experiments with mixtures"): all shares are multiples of 1/m.

It has C(S + m - 1, m) points; those above an upper bound are left out. Without `divisions` the smallest m with enough
points is taken; what is too many is thinned so that what stays is far apart, which keeps the corners.
"""

from typing import Literal

import numpy as np
import numpy.typing as npt

from schemas.errors import CuveeError
from stages.mixture.designs.design import Design
from stages.mixture.designs.region import Doubles, Region
from stages.mixture.designs.spread import farthest

Integers = npt.NDArray[np.int64]
MOST_DIVISIONS = 100
MOST_NUMBERS = 20_000_000
"""Of the lattice in memory."""


class Lattice(Design):
    """Shares that are multiples of 1/m."""

    kind: Literal["lattice"] = "lattice"
    divisions: int | None = None
    """m; default: the smallest with enough points."""

    def mixtures(self, region: Region, count: int, seed: int) -> Doubles:
        """(count, S); the seed decides nothing.

        Raises:
            CuveeError: the lattice has fewer points within the bounds, or more than memory should hold.
        """
        divisions = self.divisions or _divisions(region, count)
        found = points_within(divisions, region.upper)
        if found < count:
            raise CuveeError(
                f"the lattice of multiples of 1/{divisions} has {found} mixtures within the bounds and {count} are "
                "asked for; raise `divisions`, or ask for fewer"
            )
        if found * region.size > MOST_NUMBERS:
            raise CuveeError(f"the lattice of multiples of 1/{divisions} has {found} mixtures; design by space_filling")
        points = lattice_points(divisions, _most(divisions, region.upper)) / divisions
        first = int(np.argmax(np.round(((points - 1 / region.size) ** 2).sum(axis=1), 12)))
        return points[farthest(points, count, first)]


def _divisions(region: Region, count: int) -> int:
    found = {m: points_within(m, region.upper) for m in range(1, MOST_DIVISIONS + 1)}
    enough = [m for m, points in found.items() if points >= count]
    if not enough:
        raise CuveeError(
            f"no lattice up to multiples of 1/{MOST_DIVISIONS} has {count} mixtures within the bounds; the most is "
            f"{max(found.values())}: ask for fewer, or loosen the bounds"
        )
    return enough[0]


def _most(divisions: int, upper: Doubles) -> Integers:
    return np.minimum(np.floor(divisions * upper + 1e-9).astype(np.int64), divisions)


def points_within(divisions: int, upper: Doubles) -> int:
    """How many points {S, m} has with p <= upper, without making them."""
    ways = [1] + [0] * divisions
    for most in _most(divisions, upper):
        ways = [sum(ways[max(0, total - most) : total + 1]) for total in range(divisions + 1)]
    return ways[divisions]


def lattice_points(divisions: int, most: Integers) -> Integers:
    """(n, S) all whole numbers k with sum k = divisions and 0 <= k <= most, first source largest first."""
    later = np.append(np.cumsum(most[::-1])[::-1][1:], 0)
    points, left = np.empty((1, 0), np.int64), np.array([divisions])
    for cap, rest in zip(most, later, strict=True):
        low, high = np.maximum(left - rest, 0), np.minimum(left, cap)
        width = np.maximum(high - low + 1, 0)
        step = np.arange(width.sum()) - np.repeat(np.cumsum(width) - width, width)
        taken = np.repeat(high, width) - step
        points = np.column_stack([np.repeat(points, width, axis=0), taken])
        left = np.repeat(left, width) - taken
    return points

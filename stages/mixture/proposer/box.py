"""The simplex within bounds, {p : lower <= p <= upper, sum p = 1}: its nearest points, lowest vertices and grid.

All of it is exact up to rounding, since one number (a shift or a price common to all coordinates) settles each problem.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Doubles = npt.NDArray[np.float64]

GRID = 1_000_000
"""Shares are whole millionths where the bounds allow it: below that lie the tolerances of solvers."""
_HALVINGS = 200
_LARGEST_EXPONENT = 700.0
_SAME = 1e-9


@dataclass(frozen=True, eq=False)
class Box:
    """Bounds (k,) with 0 <= lower <= upper and sum lower <= 1 <= sum upper: whoever makes one has checked that."""

    lower: Doubles
    upper: Doubles

    def nearest(self, point: Doubles) -> Doubles:
        """The closest (k,) in the Euclidean sense: clip(point + t) for the t at which it sums to 1."""
        low, high = float((self.lower - point).min()), float((self.upper - point).max())
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            if np.clip(point + middle, self.lower, self.upper).sum() < 1:
                low = middle
            else:
                high = middle
        return self._summing(np.clip(point + high, self.lower, self.upper))

    def lowest(self, costs: Doubles) -> Doubles:
        """The vertex (k,) where costs @ p is smallest: filled from the cheapest on, ties in order."""
        order = np.argsort(costs, kind="stable")
        room = (self.upper - self.lower)[order]
        filled = np.clip(1 - self.lower.sum() - np.concatenate([[0.0], np.cumsum(room)[:-1]]), 0.0, room)
        vertex = self.lower.copy()
        vertex[order] += filled
        return vertex

    def tilted(self, costs: Doubles, prior: Doubles, strength: float) -> float:
        """A lower bound of costs @ p + strength x sum p log(p / prior) over the box, tight to rounding.

        The dual function at a price common to all coordinates, which bounds the minimum whatever the price; where
        `strength` is 0 it is the lowest vertex. Coordinates without a prior must have the upper bound 0.
        """
        if strength == 0:
            return float(costs @ self.lowest(costs))
        free = prior > 0
        costs, prior, box = costs[free], prior[free], Box(self.lower[free], self.upper[free])
        low, high = -costs.max() - 2 * strength * _LARGEST_EXPONENT, -costs.min() + 2 * strength * _LARGEST_EXPONENT
        for _ in range(_HALVINGS):
            price = (low + high) / 2
            if box._at_price(costs + price, prior, strength).sum() > 1:
                low = price
            else:
                high = price
        point = box._at_price(costs + high, prior, strength)
        return float((costs + high) @ point + strength * divergence(point, prior) - high)

    def _at_price(self, costs: Doubles, prior: Doubles, strength: float) -> Doubles:
        exponents = np.clip(-costs / strength - 1, -_LARGEST_EXPONENT, _LARGEST_EXPONENT)
        clipped: Doubles = np.clip(prior * np.exp(exponents), self.lower, self.upper)
        return clipped

    def rounded(self, point: Doubles) -> Doubles:
        """The point on a grid of millionths inside the bounds; as it is where the bounds leave no such grid point."""
        least, most = np.ceil(self.lower * GRID - _SAME), np.floor(self.upper * GRID + _SAME)
        if (least > most).any() or not least.sum() <= GRID <= most.sum():
            return point
        whole = np.clip(np.floor(point * GRID + _SAME), least, most)
        rest = point * GRID - whole
        while missing := int(GRID - whole.sum()):
            step = 1 if missing > 0 else -1
            movable = np.flatnonzero(whole < most if missing > 0 else whole > least)
            chosen = movable[np.argsort(-step * rest[movable], kind="stable")[: abs(missing)]]
            whole[chosen] += step
            rest[chosen] -= step
        grid: Doubles = whole / GRID
        return grid

    def _summing(self, point: Doubles) -> Doubles:
        """The point with the last bits of its sum moved to where there is most room."""
        point = point.copy()
        missing = 1 - point.sum()
        room = self.upper - point if missing > 0 else point - self.lower
        point[int(np.argmax(room))] += missing
        return point


def divergence(points: Doubles, prior: Doubles) -> Doubles:
    """Sum of p log(p / prior) over the last axis; a prior need not sum to 1, and 0 log 0 is 0.

    A share where the prior is 0 counts as infinite.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        parts = np.where(points > 0, points * np.log(points / prior), 0.0)
    total: Doubles = parts.sum(axis=-1)
    return total

"""The weights: a quadratic program over patterns, solved in its dual by Newton steps that keep to the bounds.

minimise  1/2 sum_g n_g (q_g - eta)^2   over q in [0, 1]^g
with      sum_g n_g q_g = eta n   and   |sum_g n_g q_g A_jg| <= t_j eta n   for every moment j.

The minimiser is q = clip(eta - mu - A' nu, 0, 1) for multipliers (mu, nu), one number per moment: enough to weigh a
pattern that was not there when they were found. The dual is convex and piecewise quadratic, so Newton steps end if a
search along their line follows where one does not help.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from schemas.errors import ContractError

Doubles = npt.NDArray[np.float64]

STEPS = 500
TOLERANCE = 1e-11
"""Of the moments and the mean, each a mean over rows."""
DECIMALS = 12
RIDGE = 1e-14
"""Of the curvature; it keeps the step of dependent moments finite."""
LEAST_RIDGE = 1e-15
"""Where there is no curvature."""
MOST_LENGTH = 1e30


@dataclass(frozen=True)
class Moments:
    """What is to be bounded: rows of A with the tolerances t."""

    values: Doubles
    """(m, g)"""
    tolerance: Doubles
    """(m,)"""
    scale: Doubles
    """(m,) what a moment is divided by to be a bias."""


def moments(
    sensitive: Doubles, labels: Doubles, shares: Doubles, means: Doubles, bounds: tuple[float, float]
) -> Moments:
    """s_k - pi_k within `bounds[0]`; (s_k - pi_k)(y_r - E y_r) within `bounds[1]` pi_k (1 - pi_k).

    The second is the covariance of s and y where the first is 0, and AB is that over the variance of s.

    Args:
        sensitive: (g, k) of 0 and 1.
        labels: (g, r) of 0 and 1.
        shares: (k,) pi, between 0 and 1.
        means: (r,) E y.
        bounds: on representation and association bias.
    """
    first = (sensitive - shares).T
    second = first[:, None, :] * (labels - means).T[None, :, :]
    values = np.concatenate([first, second.reshape(-1, len(sensitive))])
    scale = np.concatenate([np.ones(len(shares)), np.repeat(shares * (1 - shares), len(means))])
    return Moments(values, np.repeat(bounds, [len(shares), len(scale) - len(shares)]) * scale, scale)


def most_rows(rows: Doubles, bounded: Moments) -> float:
    """The largest number of rows that the bounds let be kept: a linear program, by HiGHS."""
    from scipy.optimize import linprog

    above = bounded.values - bounded.tolerance[:, None]
    below = -bounded.values - bounded.tolerance[:, None]
    matrix = np.concatenate([above, below])
    found = linprog(-rows, matrix * rows, np.zeros(len(matrix)), bounds=(0, 1), method="highs")
    if found.status != 0:
        raise ContractError(f"HiGHS did not solve a program that has a solution, q = 0: {found.message}")
    return float(-found.fun)


def weights(multipliers: Doubles, bounded: Moments, eta: float) -> Doubles:
    """(g,) q for (mu, nu_1 ... nu_m); the patterns need not be those that the multipliers were found for.

    Rounded, so that patterns of equal weight are equal and not one rounding error apart.
    """
    total = np.full(bounded.values.shape[1], eta - multipliers[0])
    for multiplier, values in zip(multipliers[1:], bounded.values, strict=True):
        total -= multiplier * values
    found: Doubles = np.round(np.clip(total, 0.0, 1.0), DECIMALS)
    return found


def solve(rows: Doubles, bounded: Moments, eta: float) -> Doubles:
    """(mu, nu_1 ... nu_m) of the program, which has to have a solution; see `most_rows`.

    The multiplier of a moment with t > 0 is the difference of two that are >= 0, and that t puts a price on.

    Raises:
        ContractError: no convergence.
    """
    priced = bounded.tolerance > 0
    dual = _Dual(
        np.concatenate([np.ones((1, len(rows))), bounded.values, -bounded.values[priced]]),
        np.concatenate([[1.0], bounded.tolerance, bounded.tolerance[priced]]) * eta,
        np.concatenate([[False], priced, np.ones(int(priced.sum()), np.bool_)]),
        rows / rows.sum(),
        eta,
    )
    point = np.zeros(len(dual.prices))
    for _ in range(STEPS):
        slope = dual.slope(point)
        if dual.unrest(point, slope) <= TOLERANCE:
            nu = point[1 : 1 + len(priced)].copy()
            nu[priced] -= point[1 + len(priced) :]
            return np.concatenate([point[:1], nu])
        point = dual.step(point, slope)
    raise ContractError(
        f"m4 found no weights in {STEPS} steps for a program that has a solution: the mean or a moment is still "
        f"{dual.unrest(point, dual.slope(point)):.1e} off; ask for fewer rows, or merge its rarest attributes"
    )


@dataclass(frozen=True)
class _Dual:
    """The dual with its sign turned, prices point - sum mass ((q - eta)^2 / 2 + q point A), over v multipliers."""

    lines: Doubles
    """(v, g) what each multiplier is multiplied with."""
    prices: Doubles
    """(v,)"""
    bound: npt.NDArray[np.bool_]
    """(v,) which have to be >= 0."""
    mass: Doubles
    """(g,) share of the rows."""
    eta: float

    def shares(self, point: Doubles) -> Doubles:
        """q that goes with the multipliers."""
        return np.clip(self.eta - point @ self.lines, 0.0, 1.0)

    def slope(self, point: Doubles) -> Doubles:
        """(v,) gradient: by how much each bound is kept."""
        found: Doubles = self.prices - self.lines @ (self.mass * self.shares(point))
        return found

    def resting(self, point: Doubles, slope: Doubles) -> npt.NDArray[np.bool_]:
        """(v,) which are at their bound and would go below it."""
        found: npt.NDArray[np.bool_] = self.bound & (point <= 0) & (slope >= 0)
        return found

    def unrest(self, point: Doubles, slope: Doubles) -> float:
        """Largest slope of a multiplier that may move; 0 at the solution."""
        return float(np.abs(np.where(self.resting(point, slope), 0.0, slope)).max())

    def step(self, point: Doubles, slope: Doubles) -> Doubles:
        """A Newton step where it halves the unrest, else the lowest point on the way of one that no bound stops.

        Rare patterns are at 0 or 1 over wide stretches, where the value is straight and Newton's length says nothing.
        """
        moves = ~self.resting(point, slope)
        direction = self._newton(point, slope, moves)
        moved = self._kept(point + direction)
        if self.unrest(moved, self.slope(moved)) <= self.unrest(point, slope) / 2:
            return moved
        while (stopped := self.bound & (point <= 0) & (direction < 0)).any():
            moves &= ~stopped
            direction = self._newton(point, slope, moves)
        return self._kept(point + self._length(point, direction) * direction)

    def _newton(self, point: Doubles, slope: Doubles, moves: npt.NDArray[np.bool_]) -> Doubles:
        """(v,) the step of those that may move, 0 for others."""
        q = self.shares(point)
        lines = self.lines[moves]
        curvature = (lines * (self.mass * ((q > 0) & (q < 1)))) @ lines.T
        ridge = max(RIDGE * float(np.trace(curvature)), LEAST_RIDGE)
        direction = np.zeros_like(point)
        direction[moves] = np.linalg.solve(curvature + ridge * np.eye(len(lines)), -slope[moves])
        return direction

    def _kept(self, point: Doubles) -> Doubles:
        return np.where(self.bound, np.maximum(point, 0.0), point)

    def _length(self, point: Doubles, direction: Doubles) -> float:
        """How far the value falls along a direction, by bisection of its slope; at most to where a bound is met."""
        falls = self.bound & (direction < 0)
        most = float(np.min(-point[falls] / direction[falls], initial=MOST_LENGTH))
        low, high = 0.0, min(1.0, most)
        while high < most and self._along(point, direction, high) < 0:
            low, high = high, min(2 * high, most)
        if self._along(point, direction, high) <= 0:
            return high
        while low < (middle := (low + high) / 2) < high:
            low, high = (low, middle) if self._along(point, direction, middle) > 0 else (middle, high)
        return low or high

    def _along(self, point: Doubles, direction: Doubles, length: float) -> float:
        return float(self.slope(self._kept(point + length * direction)) @ direction)

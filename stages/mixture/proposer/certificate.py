"""How far a proposal can be from the optimum, proved and not estimated.

For convex f and ceilings g, any point z and multipliers u >= 0,

    f(p) + lambda KL(p || r)  >=  f(z) + u g(z) + min over s in the box of (f'(z) + u g'(z)) (s - z) + lambda KL(s || r)

for all p that keep the bounds and ceilings: the right side is a linear program over the box, or one with a divergence,
and both have exact solutions (`Box.tilted`). The multipliers only decide how tight it is; they are those of the
linear program that has everything linearised at z.
"""

import numpy as np

from stages.mixture.proposer.box import Box, Doubles
from stages.mixture.proposer.program import Program

ACTIVE = 1e-6
_TOLERANCES = {"primal_feasibility_tolerance": 1e-10, "dual_feasibility_tolerance": 1e-10}


def lower_bound(program: Program, point: Doubles) -> float:
    """No shares within the bounds and ceilings have a value below this; `point` (k,) is where slopes are taken."""
    excess, slopes = program.excess(point[None])[0], program.excess_slopes(point)
    found = _multipliers(program.box, program.slope(point), slopes, excess - slopes @ point)
    tight = np.where(excess > -ACTIVE, found, 0.0)  # where none is, noise in the others would cost tightness
    return max(_bound(program, point, prices) for prices in (found, tight))


def _bound(program: Program, point: Doubles, prices: Doubles) -> float:
    costs = program.data_slope(point) + prices @ program.excess_slopes(point)
    constant = program.data(point[None])[0] + prices @ program.excess(point[None])[0] - costs @ point
    return float(constant) + program.box.tilted(costs, program.prior, program.strength)


def _multipliers(box: Box, slope: Doubles, slopes: Doubles, offsets: Doubles, total: float | None = None) -> Doubles:
    """(m,) u >= 0 where u offsets + min over s in the box of (slope + u slopes) s is largest.

    The inner minimum as its dual, max t + lower a - upper b with t + a - b = slope + u slopes and a, b >= 0, makes it
    one linear program in (u, t, a, b). With `total`, the u sum to it.
    """
    from scipy.optimize import linprog

    m, k = slopes.shape
    if m == 0:
        return np.zeros(0)
    ones, none = np.eye(k), np.zeros(k)
    equal = np.hstack([-slopes.T, np.ones((k, 1)), ones, -ones])
    right = slope
    if total is not None:
        row = np.concatenate([np.ones(m), [0.0], none, none])
        equal, right = np.vstack([equal, row]), np.append(slope, total)
    found = linprog(
        -np.concatenate([offsets, [1.0], box.lower, -box.upper]),
        A_eq=equal,
        b_eq=right,
        bounds=[(0, None)] * m + [(None, None)] + [(0, None)] * (2 * k),
        options=_TOLERANCES,
    )
    return np.maximum(found.x[:m], 0.0) if found.x is not None else np.zeros(m)


def least_excess(program: Program, point: Doubles) -> tuple[float, Doubles]:
    """A lower bound of the largest excess over all shares within the bounds, and the (m,) multipliers that prove it.

    Above 0, no shares keep all ceilings, and those with multipliers above 0 are what collides.
    """
    excess, slopes = program.excess(point[None])[0], program.excess_slopes(point)
    offsets = excess - slopes @ point
    prices = _multipliers(program.box, np.zeros(len(point)), slopes, offsets, 1.0)
    prices = prices / prices.sum() if prices.sum() > 0 else np.full(len(excess), 1 / len(excess))
    costs = prices @ slopes
    return float(prices @ offsets + costs @ program.box.lowest(costs)), prices

"""Whole rows of every pattern: rounded so that what is bounded stays where the weights have it.

Rounding pattern by pattern is off by up to half a row in each, at random, so that with hundreds of patterns the moments
of a small set drift by the square root of their number. Which patterns are rounded up is free as long as the total is
kept: pairs change sides while that brings the moments closer to those of the weights (signed-sum balancing by local
search; a pattern still keeps its amount rounded up or down).
"""

import numpy as np
import numpy.typing as npt

Doubles = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

MOST_PATTERNS = 1000
"""That may change sides, of each: those that were rounded up with least reason, and down."""
DECIMALS = 9
"""Of squared rows: a smaller gain is none, and equal ones go to the patterns that stand first."""


def balanced(counts: Integers, ideal: Doubles, moments: Doubles) -> Integers:
    """(g,) counts of the same sum, each its ideal rounded up or down, with no pair left to swap for a gain.

    Args:
        counts: (g,) to begin with, each `ideal` rounded up or down.
        ideal: (g,) real amounts of the same sum.
        moments: (m, g) what a row of each pattern adds to each of m sums, which are to be as with `ideal`; the sum of
            their squared differences is what falls.
    """
    below = np.floor(ideal)
    remainder = ideal - below
    order = np.argsort(remainder, kind="stable")
    order = order[remainder[order] > 0]
    raised = counts[order] > below[order]
    free = np.sort(np.concatenate([order[raised][:MOST_PATTERNS], order[~raised][-MOST_PATTERNS:]]))
    values = moments[:, free]
    products = values.T @ values
    squares = np.diag(products)
    found = counts.copy()
    off = moments @ (counts - ideal)
    while True:
        raised = found[free] > below[free]
        up, down = np.flatnonzero(raised), np.flatnonzero(~raised)
        if not len(up) or not len(down):
            return found
        along = 2 * (off @ values)
        # |off - v_up + v_down|^2 - |off|^2, pair by pair.
        change = (squares - along)[up, None] + (squares + along)[None, down] - 2 * products[np.ix_(up, down)]
        change = np.round(change, DECIMALS)
        best = int(change.argmin())
        if change.flat[best] >= 0:
            return found
        one, other = free[up[best // len(down)]], free[down[best % len(down)]]
        found[one] -= 1
        found[other] += 1
        off = moments @ (found - ideal)

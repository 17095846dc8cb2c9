"""Which arcs a climb of the dual sees: each row's cheapest and each column's.

A column that no row finds near would otherwise never be reached, and its potential would creep.
"""

import numpy as np

from stages.mixture.optimal_transport.box import Doubles
from stages.mixture.optimal_transport.problem import blockwise, cheapest
from stages.mixture.optimal_transport.smoothed import Arcs, Costs, Integers

_COVER = 1.5
"""Arcs of a column, in reach of a row's over its own cheapest."""
_SAMPLED = 512


def few(costs: Costs, g: Doubles, count: int) -> Arcs:
    """About `count` arcs a row: those nearest to their row's cheapest, and to their column's nearest.

    Args:
        costs: (m, b)
        g: (b,) potentials; near is what costs little above f_a + g_b, f the c-transform.
        count: of a row, on average.
    """
    f, shift = cheapest(costs, g).astype(costs.dtype), g.astype(costs.dtype)
    rows = np.arange(0, len(costs), max(1, len(costs) // _SAMPLED))
    sample = (costs[rows] - shift - f[rows, None]).ravel()
    place = min(sample.size - 1, count * len(rows))
    reach = np.partition(sample, place)[place]
    nearest = np.min(blockwise(costs, lambda part: (costs[part] - shift - f[part, None]).min(axis=0)), axis=0)
    most = np.maximum(reach, nearest + reach * costs.dtype.type(_COVER - 1))

    def found(part: slice) -> Integers:
        near: Integers = np.flatnonzero(costs[part] - shift - f[part, None] <= most) + part.start * costs.shape[1]
        return near

    return _arcs(costs, np.concatenate(blockwise(costs, found)), float(reach))


def joined(costs: Costs, arcs: Arcs, older: Arcs, g: Doubles, most: float) -> Arcs:
    """`arcs` and those of `older` that cost at most `most` above the cheapest of their row's."""
    above = older.costs - g[older.columns]
    above -= np.minimum.reduceat(above, older.starts)[older.rows]
    kept, width = above <= most, costs.shape[1]
    flat = np.union1d(arcs.rows * width + arcs.columns, older.rows[kept] * width + older.columns[kept])
    return _arcs(costs, flat, arcs.reach)


def _arcs(costs: Costs, flat: Integers, reach: float) -> Arcs:
    rows, columns = np.divmod(flat, costs.shape[1])
    starts = np.searchsorted(rows, np.arange(len(costs)))
    return Arcs(starts, rows, columns, costs[rows, columns].astype(np.float64), reach)

"""The dual of `smoothed` on few arcs, climbed by L-BFGS (Liu and Nocedal 1989).

The value and slope at one point after another are all the work, so rows are shared out over two threads, and an arc's
exponent is kept next to the top of its row at an earlier point: one pass over the arcs finds all sums while the tops
have not moved far.
"""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt

from stages.mixture.optimal_transport.box import Box, Doubles, divergence
from stages.mixture.optimal_transport.problem import THREADS
from stages.mixture.optimal_transport.smoothed import Arcs, Integers, Pull

MEMORY = 20
"""Pairs of steps and changes of slope that L-BFGS remembers."""
_EXACT = 1e-4
"""eps from which on single precision is too coarse."""
_FAR = 1e12
"""A row's sum may be this far from 1 before its top is taken anew."""
_SHARED = 2**17
"""Arcs from which on threads are worth their start."""

Floats = npt.NDArray[np.floating]


class Rows:
    """Some rows' arcs, in the order of the rows."""

    def __init__(self, columns: Integers, lengths: Integers, base: Doubles, width: int, kind: npt.DTypeLike) -> None:
        """Of the arcs' columns (k,) and g-free exponents (k,), for rows with so many arcs each, and `width` columns."""
        from scipy.sparse import csr_array

        self.base, self.lengths, ends = base, lengths, np.append(0, np.cumsum(lengths)).astype(np.int32)
        moved = np.zeros(len(columns), kind)
        self.plan = csr_array((moved, columns.astype(np.int32), ends), (len(lengths), width))
        self.turned, self.ones = self.plan.T, np.ones(width, kind)  # a view: no entry is copied
        self.top, self.below = np.zeros(0), np.zeros(0, kind)

    def totals(self, x: Doubles, narrow: Floats) -> tuple[Doubles, Floats]:
        """(rows,) log sum_b exp(base_ab + x_b), and that sum over what the top took away; x (b,) is g over eps."""
        moved = self.plan.data
        for fresh in (len(self.top) == 0, True):
            if fresh:
                self._topped(x)
            np.take(narrow, self.plan.indices, out=moved, mode="clip")
            moved += self.below
            with np.errstate(over="ignore"):  # seen in the sum, and done again
                np.exp(moved, out=moved)
            total = self.plan @ self.ones
            if total.min() > 1 / _FAR and total.max() < _FAR:
                break
        return self.top + np.log(total.astype(np.float64)), total

    def _topped(self, x: Doubles) -> None:
        self.top = np.maximum.reduceat(self.base + x[self.plan.indices], self.plan.indptr[:-1])
        self.below = (self.base - np.repeat(self.top, self.lengths)).astype(self.plan.data.dtype)


class Dual:
    """D of `smoothed` and its slope, at some g: the same function, with what does not change computed once."""

    def __init__(self, arcs: Arcs, owners: Integers, weights: Doubles, target: Doubles, eps: float, pull: Pull) -> None:
        """Of the arcs (m rows), with the rows' sources (m,) and weights (m,), and the target's weights (b,)."""
        self.kind = np.float64 if eps <= _EXACT else np.float32
        self.owners, self.weights, self.target, self.eps, self.pull = owners, weights, target, eps, pull
        base = np.log(target)[arcs.columns] - arcs.costs / eps
        ends = np.append(arcs.starts, len(base))
        half = int(np.searchsorted(arcs.starts, len(base) // THREADS)) if len(base) > _SHARED else 0
        self.parts = [slice(0, half), slice(half, len(weights))] if half else [slice(0, len(weights))]
        self.rows = []
        for part in self.parts:
            held = slice(ends[part.start], ends[part.stop])
            lengths = np.diff(ends[part.start : part.stop + 1])
            self.rows.append(Rows(arcs.columns[held], lengths, base[held], len(target), self.kind))

    def fall(self, g: Doubles, box: Box, threads: ThreadPoolExecutor) -> tuple[float, Doubles]:
        """-D and its slope (b,), which is the plan's marginal at the target less the target."""
        x = g / self.eps
        narrow = x.astype(self.kind)
        sums = list(threads.map(lambda rows: rows.totals(x, narrow), self.rows))
        f = -self.eps * np.concatenate([logs for logs, _ in sums])
        heights: Doubles = np.bincount(self.owners, f * self.weights, len(box.lower)).astype(np.float64)
        shares, drawn = answered(heights, self.pull, box)
        mass = shares[self.owners] * self.weights

        def reached(part: slice, rows: Rows, total: Floats) -> Doubles:
            return np.asarray(rows.turned @ (mass[part] / total).astype(self.kind), np.float64)

        marginal = sum(threads.map(reached, self.parts, self.rows, [total for _, total in sums]))
        return -float(self.target @ g + shares @ heights + drawn), marginal - self.target


def answered(heights: Doubles, pull: Pull, box: Box) -> tuple[Doubles, float]:
    """(S,) argmin over the box of p @ heights + t KL(p || r), and t KL there."""
    logs = pull.logs - heights / pull.strength
    if (box.lower == 0).all() and (box.upper == 1).all():
        shares = np.exp(logs - logs.max())
        shares /= shares.sum()
    else:
        shares, _ = box.nearest(logs)
    return shares, pull.strength * divergence(shares, np.exp(np.maximum(pull.logs, -690.0)))


def climbed(dual: Dual, g: Doubles, box: Box, steps: int, reach: float) -> Doubles:
    """(b,) where L-BFGS ends that starts from g (b,) and goes no further than `reach` in any entry."""
    from scipy.optimize import minimize
    from threadpoolctl import threadpool_limits

    options = {"maxiter": steps, "maxcor": MEMORY, "ftol": 0.0, "gtol": 0.0}
    bounds = np.column_stack([g - reach, g + reach])
    # A thread of the linear algebra that waits in a circle takes a core from the rows.
    with ThreadPoolExecutor(THREADS) as threads, threadpool_limits(1, "blas"):
        found = minimize(
            lambda x: dual.fall(x, box, threads), g, jac=True, method="L-BFGS-B", bounds=bounds, options=options
        )
    return np.asarray(found.x, np.float64)

"""The contract of a predictor: runs of some mixtures in, a metric as a function of the mixture out, with intervals.

A predictor is fitted to runs of one budget and one metric. Shares are rows on the simplex, so a constant needs no
column of its own. Intervals are for what one more run of that mixture would measure, noise of the run included: that
is what can be checked against runs.
"""

from collections.abc import Mapping
from typing import Protocol

import numpy as np
import numpy.typing as npt

from schemas.errors import CuveeError

Doubles = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

COVERAGE = 0.95
"""Of every interval."""
OFF_SIMPLEX = 1e-6


class Predictor(Protocol):
    """A fitted law of one metric."""

    @property
    def convex(self) -> bool:
        """Whether `predict` is convex over the simplex, for certain."""

    @property
    def smooth(self) -> bool:
        """Whether `gradient` answers."""

    def predict(self, mixtures: Doubles) -> Doubles:
        """(n, S) -> (n,): what is expected of a run."""

    def interval(self, mixtures: Doubles) -> Doubles:
        """(n, S) -> (n, 2): between which values a run is measured in 95 of 100 cases."""

    def error(self, mixtures: Doubles) -> Doubles:
        """(n, S) -> (n,): standard error of `predict`, without the noise of a run."""

    def gradient(self, mixtures: Doubles) -> Doubles:
        """(n, S) -> (n, S): slopes of `predict`; only their differences matter on the simplex.

        Raises:
            CuveeError: the law has none.
        """


class FitFunction(Protocol):
    """Fits one kind of law."""

    def __call__(
        self,
        mixtures: Doubles,
        values: Doubles,
        *,
        weights: Doubles | None = None,
        seed: int = 0,
        like: Predictor | None = None,
    ) -> Predictor:
        """Fit to `values` (n,) measured at `mixtures` (n, S).

        Args:
            mixtures: points on the simplex; equal rows are runs of one mixture.
            values: the metric, finite.
            weights: (n,) >= 0, how much each run counts; only their ratios matter.
            seed: decides every random choice.
            like: a law of the same kind whose tuning is taken over instead of searched again: for fits to parts or
                reweighted copies of the runs it was fitted to.

        Raises:
            CuveeError: shapes that do not match, numbers that are not finite, rows off the simplex, fewer than two
                mixtures.
        """


Laws = Mapping[str, FitFunction]


def checked(mixtures: Doubles, values: Doubles, weights: Doubles | None) -> Doubles:
    """The weights (n,) with mean 1 over the runs, for runs that can be fitted.

    Raises:
        CuveeError: what `FitFunction` refuses.
    """
    counted = np.ones(len(values)) if weights is None else np.asarray(weights, float)
    if mixtures.ndim != 2 or values.shape != (len(mixtures),) or counted.shape != values.shape:
        raise CuveeError(
            f"expected mixtures (n, S) with values and weights (n,), found {mixtures.shape}, {values.shape} and "
            f"{counted.shape}"
        )
    if not (np.isfinite(mixtures).all() and np.isfinite(values).all() and np.isfinite(counted).all()):
        raise CuveeError("mixtures, values and weights must be finite; drop the runs without a number")
    off = np.abs(mixtures.sum(axis=1) - 1)
    if len(mixtures) and (off.max() > OFF_SIMPLEX or mixtures.min() < -OFF_SIMPLEX):
        row = int(np.argmax(np.maximum(off, -mixtures.min(axis=1))))
        raise CuveeError(f"shares of run {row} are off the simplex: they sum to {mixtures[row].sum():.9g}")
    if (counted < 0).any() or len(np.unique(mixtures[counted > 0], axis=0)) < 2:
        raise CuveeError(f"a law needs runs of two mixtures or more with weights above 0, found {len(mixtures)} runs")
    mean_one: Doubles = counted / counted.mean()
    return mean_one

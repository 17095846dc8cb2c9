"""Linear law: a metric is the shares' average of what each source alone would give.

    y = a . p,   a = argmin sum_i w_i (y_i - a . p_i)^2 + ridge |a - mean(a)|^2

The baseline of every mixture paper (RegMix, arXiv:2407.01492, section 3; Olmix's `linear`). What we add: the ridge
pulls towards "all sources alike" and is chosen by leaving mixtures out, so that it also stands with fewer runs than
sources. Intervals are analytic.
"""

from dataclasses import dataclass

import numpy as np

from stages.mixture.predictors.errors import Errors, errors_of
from stages.mixture.predictors.folds import folds, mixture_groups
from stages.mixture.predictors.predictor import Doubles, Predictor, checked

RIDGES = tuple(10.0**power for power in (-6, -4, -3, -2, -1, 0, 1))
"""Tried, in units of runs."""
FOLDS = 10


@dataclass(frozen=True, eq=False)
class Linear:
    """A fitted linear law."""

    coefficients: Doubles
    """(S,) a."""
    errors: Errors
    ridge: float
    convex: bool = True
    smooth: bool = True

    def predict(self, mixtures: Doubles) -> Doubles:
        """a . p."""
        predicted: Doubles = mixtures @ self.coefficients
        return predicted

    def interval(self, mixtures: Doubles) -> Doubles:
        """Student's t around the prediction."""
        return self.errors.interval(self.predict(mixtures), mixtures)

    def error(self, mixtures: Doubles) -> Doubles:
        """Of a . p."""
        return self.errors.standard(mixtures)

    def gradient(self, mixtures: Doubles) -> Doubles:
        """a, whatever the mixture."""
        return np.broadcast_to(self.coefficients, mixtures.shape).copy()


def fit_linear(
    mixtures: Doubles,
    values: Doubles,
    *,
    weights: Doubles | None = None,
    seed: int = 0,
    like: Predictor | None = None,
) -> Linear:
    """Fit by ridge regression; see `FitFunction`."""
    counted = checked(mixtures, values, weights)
    ridge = like.ridge if isinstance(like, Linear) else _chosen_ridge(mixtures, values, counted, seed)
    coefficients = _solved(mixtures, values, counted, ridge)
    penalty = ridge * _deviations(mixtures.shape[1])
    return Linear(coefficients, errors_of(mixtures, values - mixtures @ coefficients, counted, penalty), ridge)


def _deviations(sources: int) -> Doubles:
    """(S, S) the quadratic form |a - mean(a)|^2."""
    return np.eye(sources) - 1 / sources


def _solved(mixtures: Doubles, values: Doubles, weights: Doubles, ridge: float) -> Doubles:
    weighted = mixtures * weights[:, None]
    level = float((weights * values).sum() / weights.sum())  # sources that no run drew from get the mean of the runs
    normal = mixtures.T @ weighted + ridge * _deviations(mixtures.shape[1])
    solved = np.linalg.lstsq(normal, weighted.T @ (values - level), rcond=None)[0]
    return np.asarray(level + solved, np.float64)


def _chosen_ridge(mixtures: Doubles, values: Doubles, weights: Doubles, seed: int) -> float:
    scores = np.zeros(len(RIDGES))
    for learned, left_out in folds(mixture_groups(mixtures), FOLDS, seed):
        for k, ridge in enumerate(RIDGES):
            found = _solved(mixtures[learned], values[learned], weights[learned], ridge)
            scores[k] += (weights[left_out] * (values[left_out] - mixtures[left_out] @ found) ** 2).sum()
    return RIDGES[int(np.argmin(scores))]

"""Log-linear law: what can be lost falls by a constant factor per share.

    y = c + exp(a . p)

Olmix's `log_linear` (allenai/olmix); with one validation domain also the exponential mixing law, since a constant k in
front is a shift of all a on the simplex. Convex in p for any c and a. Fitted by damped least squares (Levenberg and
Marquardt) from several starts of c, each with a from a weighted regression of log(y - c); the ridge acts on the slopes
at the mean mixture, k (a_j - mean a), not on a: on a it would favour a straight line (k without bound). It is chosen
by leaving mixtures out. Intervals by the delta method.
"""

from dataclasses import dataclass

import numpy as np

from stages.mixture.predictors.errors import Errors, errors_of
from stages.mixture.predictors.folds import folds, mixture_groups
from stages.mixture.predictors.predictor import Doubles, Predictor, checked

RIDGES = tuple(10.0**power for power in (-6, -4, -3, -2, -1))
"""Tried, in units of runs."""
OFFSETS = (0.02, 0.3, 1.5, 6.0)
"""Starts of c: below the lowest value by these many times the range of the values."""
FOLDS = 5
_LARGEST_EXPONENT = 30.0


@dataclass(frozen=True, eq=False)
class LogLinear:
    """A fitted log-linear law."""

    floor: float
    """c."""
    exponents: Doubles
    """(S,) a."""
    scale: float
    """Exponents are in units of it: y = c + scale exp(a . p)."""
    errors: Errors
    ridge: float
    convex: bool = True
    smooth: bool = True

    def predict(self, mixtures: Doubles) -> Doubles:
        """c + exp(a . p)."""
        return self.floor + self._decay(mixtures)

    def interval(self, mixtures: Doubles) -> Doubles:
        """Delta method, Student's t."""
        return self.errors.interval(self.predict(mixtures), self._slopes(mixtures))

    def error(self, mixtures: Doubles) -> Doubles:
        """Delta method."""
        return self.errors.standard(self._slopes(mixtures))

    def gradient(self, mixtures: Doubles) -> Doubles:
        """exp(a . p) a."""
        return self._decay(mixtures)[:, None] * self.exponents

    def _slopes(self, mixtures: Doubles) -> Doubles:
        """(n, 1 + S) of predictions by c in units of the scale, and a."""
        decay = self._decay(mixtures)
        return np.column_stack([np.full(len(decay), self.scale), decay[:, None] * mixtures])

    def _decay(self, mixtures: Doubles) -> Doubles:
        return self.scale * _exp(mixtures @ self.exponents)


def fit_log_linear(
    mixtures: Doubles,
    values: Doubles,
    *,
    weights: Doubles | None = None,
    seed: int = 0,
    like: Predictor | None = None,
) -> LogLinear:
    """Fit by penalised least squares; see `FitFunction`."""
    counted = checked(mixtures, values, weights)
    low, scale = float(values.min()), float(np.ptp(values)) or 1.0
    unit = (values - low) / scale
    if isinstance(like, LogLinear):
        ridge, starts = like.ridge, [np.append((like.floor - low) / scale, _moved(like, scale))]
    else:
        ridge, starts = _chosen_ridge(mixtures, unit, counted, seed), None
    found = _best(mixtures, unit, counted, ridge, starts)
    decay = _exp(mixtures @ found[1:])
    slopes = scale * np.column_stack([np.ones(len(unit)), decay[:, None] * mixtures])
    residuals = scale * (unit - found[0] - decay)
    root = scale * _penalty_slopes(found, ridge)
    return LogLinear(
        low + scale * float(found[0]), found[1:], scale, errors_of(slopes, residuals, counted, root.T @ root), ridge
    )


def _moved(like: LogLinear, scale: float) -> Doubles:
    """Its exponents in units of another scale."""
    moved: Doubles = like.exponents + np.log(like.scale / scale)
    return moved


def _exp(exponents: Doubles) -> Doubles:
    grown: Doubles = np.exp(np.clip(exponents, -_LARGEST_EXPONENT, _LARGEST_EXPONENT))
    return grown


def _starts(mixtures: Doubles, unit: Doubles, weights: Doubles) -> list[Doubles]:
    """c below the values, a from the regression of log(y - c) in which errors of y count alike."""
    starts = []
    for offset in OFFSETS:
        above = unit + offset
        root = np.sqrt(weights) * above
        ridge = 1e-2 * (np.eye(mixtures.shape[1]) - 1 / mixtures.shape[1])
        level = np.log(above).mean()
        normal = (mixtures * root[:, None] ** 2).T @ mixtures + ridge
        right = (mixtures * root[:, None] ** 2).T @ (np.log(above) - level)
        starts.append(np.append(-offset, level + np.linalg.lstsq(normal, right, rcond=None)[0]))
    return starts


def _best(
    mixtures: Doubles, unit: Doubles, weights: Doubles, ridge: float, starts: list[Doubles] | None = None
) -> Doubles:
    """(1 + S,) c and a with the lowest penalised error over the starts; ties to the first."""
    ends = [_descended(mixtures, unit, weights, ridge, start) for start in starts or _starts(mixtures, unit, weights)]
    return min(ends, key=lambda end: end[0])[1]


def _penalty_slopes(x: Doubles, ridge: float) -> Doubles:
    """(S, 1 + S) slopes of the penalty's rows, with k held."""
    sources = len(x) - 1
    rows = np.eye(sources) - 1 / sources
    level = float(_exp(x[1:].mean()[None])[0])
    slopes: Doubles = np.sqrt(ridge) * level * np.column_stack([np.zeros(sources), rows])
    return slopes


def _descended(
    mixtures: Doubles, unit: Doubles, weights: Doubles, ridge: float, start: Doubles
) -> tuple[float, Doubles]:
    """Cost and (1 + S,) where damped least squares ends."""
    from scipy.optimize import least_squares

    root = np.sqrt(weights)
    sources = mixtures.shape[1]
    centred = np.eye(sources) - 1 / sources

    def rows(x: Doubles) -> Doubles:
        held = np.sqrt(ridge) * _exp(x[1:].mean()[None]) * (centred @ x[1:])
        return np.concatenate([root * (x[0] + _exp(mixtures @ x[1:]) - unit), held])

    def slopes(x: Doubles) -> Doubles:
        decay = root * _exp(mixtures @ x[1:])
        level = np.sqrt(ridge) * float(_exp(x[1:].mean()[None])[0])
        held = level * (centred + np.outer(centred @ x[1:], np.full(sources, 1 / sources)))
        top = np.column_stack([root, decay[:, None] * mixtures])
        return np.vstack([top, np.column_stack([np.zeros(sources), held])])

    found = least_squares(rows, start, jac=slopes, method="lm", max_nfev=60, xtol=1e-9, ftol=1e-9, gtol=1e-9)
    return float(found.cost), found.x


def _chosen_ridge(mixtures: Doubles, unit: Doubles, weights: Doubles, seed: int) -> float:
    scores = np.zeros(len(RIDGES))
    for learned, left_out in folds(mixture_groups(mixtures), FOLDS, seed):
        start: list[Doubles] | None = None
        for k in range(len(RIDGES) - 1, -1, -1):  # from the stiffest on, each from the last
            found = _best(mixtures[learned], unit[learned], weights[learned], RIDGES[k], start)
            start = [found]
            wrong = unit[left_out] - found[0] - _exp(mixtures[left_out] @ found[1:])
            scores[k] += (weights[left_out] * wrong**2).sum()
    return RIDGES[int(np.argmin(scores))]

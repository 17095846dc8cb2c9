"""projektor's parametric law: a mixture's metric from its optimal-transport distance to the target, and its shares.

"Performance Scaling via Optimal Transport" (arXiv:2307.02460, section 4), at one budget:

    L(p) = sum_i (b2_i p_i^2 + b1_i p_i + b0) OT(p) + sum_i (c2_i p_i^2 + c1_i p_i + c0)

On the simplex b0 and c0 are part of b1 and c1, so that 4 S coefficients remain; what runs do not decide (with two
sources p_1^2 - p_2^2 = p_1 - p_2) is settled by the least squares solution of smallest norm. The published notebook
leaves out the pure p_i^2 terms and one source; its law is a special case. What we add: a ridge of the highest
evidence (Rasmussen & Williams 2006, 2.7; as if coefficients were drawn alike), without which the noise of the runs
grows several times on its way to mixtures far from them, and analytic intervals. Distances count in units of
their median over the runs.

The distance is a function of the mixture, so that the law also predicts mixtures nobody ran: (n, S) -> (n,).
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from schemas.errors import CuveeError
from stages.mixture.predictors.errors import Errors, errors_of
from stages.mixture.predictors.predictor import Doubles, FitFunction, Predictor, checked

Distance = Callable[[Doubles], Doubles]
Slopes = Callable[[Doubles], Doubles]
"""(n, S) -> (n, S): how the distance changes with each share, e.g. dual potentials averaged over each source."""

RIDGES = tuple(10.0**power for power in range(-10, 3))
"""Tried: (noise / size of a coefficient)^2."""
STEP = 1e-5
"""Of central differences along shares, for a distance that comes without slopes."""


@dataclass(frozen=True, eq=False)
class Projektor:
    """A fitted law."""

    coefficients: Doubles
    """(4 S,) b2, b1, c2, c1."""
    level: float
    unit: float
    """Of distances: their median over the runs."""
    distance: Distance
    slopes: Slopes | None
    errors: Errors
    ridge: float
    convex: bool = False
    smooth: bool = True

    def predict(self, mixtures: Doubles) -> Doubles:
        """The law at the distance of each mixture."""
        b2, b1, c2, c1 = self.coefficients.reshape(4, -1)
        far = _distances(self.distance, mixtures)
        predicted: Doubles = self.level + (mixtures**2 @ b2 + mixtures @ b1) * far + mixtures**2 @ c2 + mixtures @ c1
        return predicted

    def interval(self, mixtures: Doubles) -> Doubles:
        """Student's t."""
        return self.errors.interval(self.predict(mixtures), self._columns(mixtures))

    def error(self, mixtures: Doubles) -> Doubles:
        """Of the prediction."""
        return self.errors.standard(self._columns(mixtures))

    def gradient(self, mixtures: Doubles) -> Doubles:
        """Product rule: through the shares at a fixed distance, and through the distance."""
        b2, b1, c2, c1 = self.coefficients.reshape(4, -1)
        far = _distances(self.distance, mixtures)[:, None]
        by_distance = (b2 * mixtures**2 + b1 * mixtures).sum(axis=1, keepdims=True)
        moved = self.slopes(mixtures) if self.slopes else _differences(self.distance, mixtures)
        slopes: Doubles = (2 * b2 * mixtures + b1) * far + 2 * c2 * mixtures + c1 + by_distance * moved
        return slopes

    def _columns(self, mixtures: Doubles) -> Doubles:
        return _columns(mixtures, _distances(self.distance, mixtures) / self.unit)


def projektor(distance: Distance, slopes: Slopes | None = None) -> FitFunction:
    """The fit function of this law for mixtures whose distance to the target is known."""

    def fit(
        mixtures: Doubles,
        values: Doubles,
        *,
        weights: Doubles | None = None,
        seed: int = 0,
        like: Predictor | None = None,
    ) -> Predictor:
        return fit_projektor(mixtures, values, distance, slopes=slopes, weights=weights, seed=seed, like=like)

    return fit


def fit_projektor(
    mixtures: Doubles,
    values: Doubles,
    distance: Distance,
    *,
    slopes: Slopes | None = None,
    weights: Doubles | None = None,
    seed: int = 0,
    like: Predictor | None = None,
) -> Projektor:
    """Fit by ridge regression; see `FitFunction`.

    Args:
        mixtures, values, weights, seed, like: as there.
        distance: of mixtures (n, S) to the target, (n,), >= 0.
        slopes: of the distance; by central differences where there are none.

    Raises:
        CuveeError: what `FitFunction` refuses, or distances that are negative, not finite or not (n,).
    """
    counted = checked(mixtures, values, weights)
    far = _distances(distance, mixtures)
    unit = float(np.median(far)) or 1.0
    columns = _columns(mixtures, far / unit)
    ridge = like.ridge if isinstance(like, Projektor) else _likeliest_ridge(columns, values, counted)
    level, coefficients = _solved(columns, values, counted, ridge)
    penalty = ridge * np.eye(columns.shape[1])
    errors = errors_of(columns, values - level - columns @ coefficients, counted, penalty)
    coefficients[: 2 * mixtures.shape[1]] /= unit
    return Projektor(coefficients, level, unit, distance, slopes, errors, ridge)


def _distances(distance: Distance, mixtures: Doubles) -> Doubles:
    far = np.asarray(distance(mixtures), np.float64)
    if far.shape != (len(mixtures),) or not np.isfinite(far).all() or (far < 0).any():
        raise CuveeError(
            f"distances must be {len(mixtures)} numbers from 0 on, found shape {far.shape}: {far.ravel()[:5]}"
        )
    return far


def _columns(mixtures: Doubles, far: Doubles) -> Doubles:
    """(n, 4 S)."""
    squared = mixtures**2
    return np.hstack([squared * far[:, None], mixtures * far[:, None], squared, mixtures])


def _solved(columns: Doubles, values: Doubles, weights: Doubles, ridge: float) -> tuple[float, Doubles]:
    """The mean of the values, and (4 S,) coefficients of what lies around it."""
    level = float((weights * values).sum() / weights.sum())
    weighted = columns * weights[:, None]
    normal = columns.T @ weighted + ridge * np.eye(columns.shape[1])
    found = np.linalg.lstsq(normal, weighted.T @ (values - level), rcond=1e-13)[0]
    return level, found.astype(np.float64)


def _likeliest_ridge(columns: Doubles, values: Doubles, weights: Doubles) -> float:
    """The ridge with the highest evidence: coefficients N(0, noise^2 / ridge), the noise at its own best.

    Mixtures left out among the runs would say nothing about the far side, where other coefficients matter.
    """
    root = np.sqrt(weights)
    level = (weights * values).sum() / weights.sum()
    axes, sizes, _ = np.linalg.svd(columns * root[:, None], full_matrices=False)
    around = root * (values - level)
    along = (axes.T @ around) ** 2
    scores = []
    for ridge in RIDGES:
        shrunk = sizes**2 / (sizes**2 + ridge)
        noise = max(float((around**2).sum() - (shrunk * along).sum()), 1e-300)
        scores.append(len(values) * np.log(noise) + np.log1p(sizes**2 / ridge).sum())
    return RIDGES[int(np.argmin(scores))]


def _differences(distance: Distance, mixtures: Doubles) -> Doubles:
    """(n, S) slopes of the distance when a share grows at the cost of all in proportion, so that it stays a mixture.

    Along the simplex these are the slopes; across it, where no mixture lies, they are 0.
    """
    found = np.empty(mixtures.shape)
    for source in range(mixtures.shape[1]):
        towards = np.eye(mixtures.shape[1])[source] - mixtures
        ahead = _distances(distance, mixtures + STEP * towards)
        back = np.where(mixtures[:, source] > STEP, STEP, 0.0)  # no mixture lies below a share of 0
        behind = _distances(distance, mixtures - back[:, None] * towards)
        found[:, source] = (ahead - behind) / (STEP + back)
    return found

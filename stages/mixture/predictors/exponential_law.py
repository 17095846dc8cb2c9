"""Exponential mixing law with hidden domains, from "Data Mixing Laws" (arXiv:2403.16952, equations 7 and 8).

    L(p) = c + sum_i k_i exp(t_i . p),   k_i > 0

One validation domain obeys one exponential; a held-out set is a blend of domains nobody named, hence a sum. The paper
fits by the Huber loss with L-BFGS from random starts, and so do we, from starts drawn from the seed. Terms are written
exp(a_i . p), a_i = t_i + log k_i, which is the same on the simplex. What we add: the number of terms, and a ridge on
the slopes k_i (t_i - mean t_i), are chosen by leaving mixtures out. Convex in p, as every k_i > 0. Intervals by the
delta method.
"""

from dataclasses import dataclass

import numpy as np

from stages.mixture.predictors.errors import Errors, errors_of
from stages.mixture.predictors.folds import folds, mixture_groups
from stages.mixture.predictors.predictor import Doubles, Predictor, checked
from stages.noise import uniform_noise

TERMS = (1, 2)
RIDGES = (1e-2, 1e-1)
"""Tried, in units of runs."""
STARTS = 2
FOLDS = 3
HUBER = 0.3
"""Where errors begin to count linearly instead of squared, as a share of the range of the middle 90 % of the values."""
OFFSET = 0.3
"""The floor starts this share of the range below the lowest value."""
LEAST = 0.02
"""The lowest value lies at least this far above the floor that fits start from."""
SPREAD = 1.0
"""Starts of exponents lie this far from each other."""
_LARGEST_EXPONENT = 30.0


@dataclass(frozen=True, eq=False)
class ExponentialLaw:
    """A fitted sum of exponentials."""

    floor: float
    """c."""
    exponents: Doubles
    """(K, S) a."""
    scale: float
    """y = c + scale sum exp(a . p)."""
    errors: Errors
    ridge: float
    convex: bool = True
    smooth: bool = True

    def predict(self, mixtures: Doubles) -> Doubles:
        """c + the sum of exponentials."""
        predicted: Doubles = self.floor + self._decays(mixtures).sum(axis=1)
        return predicted

    def interval(self, mixtures: Doubles) -> Doubles:
        """Delta method, Student's t."""
        return self.errors.interval(self.predict(mixtures), self._slopes(mixtures))

    def error(self, mixtures: Doubles) -> Doubles:
        """Delta method."""
        return self.errors.standard(self._slopes(mixtures))

    def gradient(self, mixtures: Doubles) -> Doubles:
        """Sum of exp(a . p) a."""
        return self._decays(mixtures) @ self.exponents

    def _decays(self, mixtures: Doubles) -> Doubles:
        return self.scale * _exp(mixtures @ self.exponents.T)

    def _slopes(self, mixtures: Doubles) -> Doubles:
        return self.scale * _by_coefficient(mixtures, _exp(mixtures @ self.exponents.T))


def fit_exponential_law(
    mixtures: Doubles,
    values: Doubles,
    *,
    weights: Doubles | None = None,
    seed: int = 0,
    like: Predictor | None = None,
) -> ExponentialLaw:
    """Fit by the penalised Huber loss; see `FitFunction`."""
    counted = checked(mixtures, values, weights)
    low, scale = _middle(values)
    unit = (values - low) / scale
    if isinstance(like, ExponentialLaw):
        ridge, first = like.ridge, np.append((like.floor - low) / scale, like.exponents + np.log(like.scale / scale))
        starts = [first]
    else:
        terms, ridge = _chosen_form(mixtures, unit, counted, seed)
        starts = _starts(mixtures, unit, counted, terms, seed, STARTS)
    found = _best(mixtures, unit, counted, ridge, starts)
    exponents = _exponents(found, mixtures.shape[1])
    errors = _errors(mixtures, unit, counted, found, ridge)
    return ExponentialLaw(
        low + scale * float(found[0]),
        exponents,
        scale,
        Errors(errors.covariance, scale * errors.noise, errors.left),
        ridge,
    )


def _middle(values: Doubles) -> tuple[float, float]:
    """Where the middle 90 % of the values begin, and how far they reach: what one failed run does not move."""
    low, high = (float(end) for end in np.percentile(values, (5, 95)))
    return low, high - low or 1.0


def _errors(mixtures: Doubles, unit: Doubles, weights: Doubles, x: Doubles, ridge: float) -> Errors:
    """Of squared errors: runs that are far off count in full, since intervals have to reach them as well."""
    exponents = _exponents(x, mixtures.shape[1])
    decays = _exp(mixtures @ exponents.T)
    held = np.kron(np.diag(_levels(exponents) ** 2), np.eye(mixtures.shape[1]) - 1 / mixtures.shape[1])
    penalty = np.zeros((len(x), len(x)))
    penalty[1:, 1:] = ridge * held
    return errors_of(_by_coefficient(mixtures, decays), unit - x[0] - decays.sum(axis=1), weights, penalty)


def _exp(exponents: Doubles) -> Doubles:
    grown: Doubles = np.exp(np.clip(exponents, -_LARGEST_EXPONENT, _LARGEST_EXPONENT))
    return grown


def _exponents(x: Doubles, sources: int) -> Doubles:
    return x[1:].reshape(-1, sources)


def _by_coefficient(mixtures: Doubles, decays: Doubles) -> Doubles:
    """(n, 1 + K S) slopes of the law by c and a."""
    parts = (decays[:, :, None] * mixtures[:, None, :]).reshape(len(mixtures), -1)
    return np.column_stack([np.ones(len(mixtures)), parts])


def _levels(exponents: Doubles) -> Doubles:
    """(K,) each term's height at the mean of the simplex."""
    return _exp(exponents.mean(axis=1))


def _starts(mixtures: Doubles, unit: Doubles, weights: Doubles, terms: int, seed: int, count: int) -> list[Doubles]:
    """c below the values, every term a regression of log((y - c) / K) plus noise; the first start has the least."""
    sources = mixtures.shape[1]
    above = np.clip(unit, unit[unit >= -HUBER].min(), 1 + HUBER) + OFFSET
    above += max(LEAST - float(above.min()), 0.0)
    counted = weights * above**2  # so that errors of y count alike
    level = np.log(above / terms).mean()
    normal = (mixtures * counted[:, None]).T @ mixtures + 1e-2 * (np.eye(sources) - 1 / sources)
    regression = (
        level
        + np.linalg.lstsq(normal, (mixtures * counted[:, None]).T @ (np.log(above / terms) - level), rcond=None)[0]
    )
    keys = [f"{start}/{term}/{source}" for start in range(count) for term in range(terms) for source in range(sources)]
    noise = (uniform_noise(keys, seed, "exponential_law start") - 0.5).reshape(count, terms, sources)
    return [
        np.append(-OFFSET, regression + SPREAD * (start + 1) * (noise[start] if terms > 1 or start else 0.0 * noise[0]))
        for start in range(count)
    ]


def _best(mixtures: Doubles, unit: Doubles, weights: Doubles, ridge: float, starts: list[Doubles]) -> Doubles:
    """(1 + K S,) c and a with the lowest penalised loss over the starts; ties to the first."""
    ends = [_descended(mixtures, unit, weights, ridge, start) for start in starts]
    best: Doubles = min(ends, key=lambda end: end[0])[1]
    return best


def _descended(
    mixtures: Doubles, unit: Doubles, weights: Doubles, ridge: float, start: Doubles
) -> tuple[float, Doubles]:
    """Loss and coefficients where L-BFGS ends."""
    from scipy.optimize import minimize

    sources = mixtures.shape[1]

    def loss(x: Doubles) -> tuple[float, Doubles]:
        exponents = _exponents(x, sources)
        decays = _exp(mixtures @ exponents.T)
        wrong = x[0] + decays.sum(axis=1) - unit
        pull = weights * np.clip(wrong, -HUBER, HUBER)
        size = np.abs(wrong)
        huber = np.where(size <= HUBER, wrong**2 / 2, HUBER * (size - HUBER / 2))
        apart = exponents - exponents.mean(axis=1, keepdims=True)
        held = ridge * _levels(exponents)[:, None] ** 2
        total = (weights * huber).sum() + (held * apart**2).sum() / 2
        turned = (decays * pull[:, None]).T @ mixtures
        turned += held * (apart + (apart**2).sum(axis=1, keepdims=True) / sources)
        return float(total), np.append(pull.sum(), turned)

    found = minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": 200, "ftol": 1e-10, "gtol": 1e-7})
    return float(found.fun), found.x


def _chosen_form(mixtures: Doubles, unit: Doubles, weights: Doubles, seed: int) -> tuple[int, float]:
    """Terms and ridge with the lowest squared error over mixtures left out; ties to fewer terms, then less ridge."""
    forms = [(terms, ridge) for terms in TERMS for ridge in RIDGES]
    scores = np.zeros(len(forms))
    for learned, left_out in folds(mixture_groups(mixtures), FOLDS, seed):
        for k, (terms, ridge) in enumerate(forms):
            starts = _starts(mixtures[learned], unit[learned], weights[learned], terms, seed, 1)
            found = _best(mixtures[learned], unit[learned], weights[learned], ridge, starts)
            decays = _exp(mixtures[left_out] @ _exponents(found, mixtures.shape[1]).T)
            scores[k] += (weights[left_out] * (unit[left_out] - found[0] - decays.sum(axis=1)) ** 2).sum()
    return forms[int(np.argmin(scores))]

"""Gaussian process on shares (Rasmussen & Williams 2006, chapters 2 and 5), exact, for up to a few thousand runs.

    y = mean + f(z(p)) + noise,   z_j = (p_j + 0.001)^0.2, each to mean 0 and deviation 1 over the runs,
    k(z, z') = s (1 + sqrt5 r + 5 r^2 / 3) exp(-sqrt5 r) + 1,   r^2 = sum_j w_j (z_j - z_j')^2   (Matern 5/2)

The power lies between log p and sqrt p: the first percent of a source changes more than the next ten, and a share of 0
is finite. Every source has a relevance w_j of its own. s, w and the noise are where the marginal likelihood times
weak log-normal priors is largest (L-BFGS with exact slopes, two starts), so that 32 runs of 17 sources do not
overfit. Intervals are the posterior's, with the noise of a run, widened where mixtures that were left out of everything
lie outside too often. Smooth; convex it is not.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from stages.mixture.predictors.folds import folds, mixture_groups
from stages.mixture.predictors.predictor import COVERAGE, Doubles, Predictor, checked

POWER, SHIFT = 0.2, 1e-3
CONSTANT = 1.0
"""Prior variance of a constant; values have variance 1."""
LEAST_NOISE = 1e-6
FOLDS = 5
STARTS = (0.0, -1.5)
"""Of log relevance, from its prior's middle."""
MIDDLES = {"relevance": -0.5, "signal": 0.0, "noise": -4.0}
"""Middles of the priors of logarithms; that of the relevance less log S."""
WIDTHS = {"relevance": 1.5, "signal": 2.0, "noise": 2.0}
_SMALLEST = 1e-12


@dataclass(frozen=True, eq=False)
class GaussianProcess:
    """A fitted process."""

    hyper: Doubles
    """(S + 2,) logarithms of w, s and noise, in standardised units."""
    middle: Doubles
    width: Doubles
    """(S,) of the features over the runs."""
    runs: Doubles
    """(n, S) features of the runs, standardised."""
    factor: Doubles
    """(n, n) lower Cholesky factor of the runs' covariance."""
    pull: Doubles
    """(n,) the inverse covariance times the values."""
    level: float
    scale: float
    """Mean and deviation of the values."""
    seen: tuple[Doubles, Doubles, Doubles]
    """Mixtures, values and weights of the runs."""
    seed: int
    convex: bool = False
    smooth: bool = True

    def predict(self, mixtures: Doubles) -> Doubles:
        """The posterior's mean."""
        asked = self._features(mixtures)
        predicted: Doubles = self.level + self.scale * (_covariance(asked, self.runs, self.hyper)[0] @ self.pull)
        return predicted

    def interval(self, mixtures: Doubles) -> Doubles:
        """The posterior of one more run."""
        from scipy.stats import norm

        noise = self.scale * float(np.sqrt(np.exp(self.hyper[-1]) + LEAST_NOISE))
        reach = self.widening * norm.ppf((1 + COVERAGE) / 2) * np.hypot(self.error(mixtures), noise)
        predicted = self.predict(mixtures)
        return np.stack([predicted - reach, predicted + reach], axis=1)

    def error(self, mixtures: Doubles) -> Doubles:
        """The posterior's deviation, without noise."""
        from scipy.linalg import solve_triangular

        asked = self._features(mixtures)
        across = solve_triangular(self.factor, _covariance(self.runs, asked, self.hyper)[0], lower=True)
        own = float(np.exp(self.hyper[-2])) + CONSTANT
        spread: Doubles = self.scale * np.sqrt(np.maximum(own - (across**2).sum(axis=0), 0.0))
        return spread

    def gradient(self, mixtures: Doubles) -> Doubles:
        """Of the posterior's mean."""
        asked = self._features(mixtures)
        relevance = np.exp(self.hyper[:-2])
        pulls = _covariance(asked, self.runs, self.hyper)[1] * self.pull  # (n, m): slopes of k by r^2, times the pull
        turned = 2 * relevance * (asked * pulls.sum(axis=1, keepdims=True) - pulls @ self.runs)
        inner = POWER * (np.maximum(mixtures, 0.0) + SHIFT) ** (POWER - 1) / self.width
        slopes: Doubles = self.scale * turned * inner
        return slopes

    @cached_property
    def widening(self) -> float:
        """How much wider intervals must be to hold as many left-out runs as they promise (conformal); at least 1."""
        from scipy.stats import norm

        mixtures, values, weights = self.seen
        errors = np.empty(len(values))
        for learned, rest in folds(mixture_groups(mixtures), FOLDS, self.seed):
            law = _fitted(mixtures[learned], values[learned], weights[learned], self.seed, None)
            noise = law.scale**2 * (np.exp(law.hyper[-1]) + LEAST_NOISE) / weights[rest]
            spread = np.sqrt(law.error(mixtures[rest]) ** 2 + noise)
            errors[rest] = np.abs(values[rest] - law.predict(mixtures[rest])) / spread
        rank = min(int(np.ceil(COVERAGE * (len(errors) + 1))), len(errors))
        return max(float(np.sort(errors)[rank - 1] / norm.ppf((1 + COVERAGE) / 2)), 1.0)

    def _features(self, mixtures: Doubles) -> Doubles:
        return (_powers(mixtures) - self.middle) / self.width


def fit_gaussian_process(
    mixtures: Doubles,
    values: Doubles,
    *,
    weights: Doubles | None = None,
    seed: int = 0,
    like: Predictor | None = None,
) -> GaussianProcess:
    """Fit by the marginal likelihood; a run of weight w has 1 / w of the noise. See `FitFunction`."""
    counted = checked(mixtures, values, weights)
    seen = counted > _SMALLEST
    return _fitted(mixtures[seen], values[seen], counted[seen], seed, like)


def _fitted(mixtures: Doubles, values: Doubles, counted: Doubles, seed: int, like: Predictor | None) -> GaussianProcess:
    level, scale = float(np.average(values, weights=counted)), float(values.std()) or 1.0
    powers = _powers(mixtures)
    middle, width = powers.mean(axis=0), np.maximum(powers.std(axis=0), _SMALLEST**0.5)
    runs, unit = (powers - middle) / width, (values - level) / scale
    if isinstance(like, GaussianProcess):
        hyper = like.hyper
    else:
        ends = [_descended(runs, unit, counted, start) for start in _starts(mixtures.shape[1])]
        hyper = min(ends, key=lambda end: end[0])[1]
    factor, pull = _solved(_covariance(runs, runs, hyper)[0], unit, counted, float(hyper[-1]))
    return GaussianProcess(hyper, middle, width, runs, factor, pull, level, scale, (mixtures, values, counted), seed)


def _powers(mixtures: Doubles) -> Doubles:
    powers: Doubles = (np.maximum(mixtures, 0.0) + SHIFT) ** POWER
    return powers


def _covariance(one: Doubles, other: Doubles, hyper: Doubles) -> tuple[Doubles, Doubles]:
    """(n, m) k, and its slopes by r^2."""
    root, signal = np.exp(hyper[:-2] / 2), np.exp(hyper[-2])
    a, b = one * root, other * root
    apart = np.maximum((a**2).sum(axis=1)[:, None] + (b**2).sum(axis=1) - 2 * a @ b.T, 0.0)
    far = np.sqrt(5 * apart)
    fallen = signal * np.exp(-far)
    return fallen * (1 + far + far**2 / 3) + CONSTANT, -5 / 6 * fallen * (1 + far)


def _solved(covariance: Doubles, unit: Doubles, weights: Doubles, log_noise: float) -> tuple[Doubles, Doubles]:
    """The factor (n, n) of covariance plus noise, and (n,) its inverse times the values."""
    from scipy.linalg import cho_solve, cholesky

    noisy = covariance + np.diag((np.exp(log_noise) + LEAST_NOISE) / weights)
    factor = cholesky(noisy, lower=True)
    return factor, cho_solve((factor, True), unit)


def _starts(sources: int) -> list[Doubles]:
    middle = _prior(sources)[0]
    return [middle + np.append(np.full(sources, moved), np.zeros(2)) for moved in STARTS]


def _prior(sources: int) -> tuple[Doubles, Doubles]:
    """(S + 2,) middles and widths of the logarithms."""
    names = ("signal", "noise")
    middles = [*[MIDDLES["relevance"] - np.log(sources)] * sources, *(MIDDLES[name] for name in names)]
    return np.array(middles), np.array([*[WIDTHS["relevance"]] * sources, *(WIDTHS[name] for name in names)])


def _descended(runs: Doubles, unit: Doubles, weights: Doubles, start: Doubles) -> tuple[float, Doubles]:
    """Minus the log posterior, and (S + 2,) where L-BFGS ends."""
    from scipy.optimize import minimize

    found = minimize(
        lambda hyper: _loss(runs, unit, weights, hyper),
        start,
        jac=True,
        method="L-BFGS-B",
        bounds=list(zip(start - 8, start + 8, strict=True)),
        options={"maxiter": 60, "ftol": 1e-7},
    )
    return float(found.fun), found.x


def _loss(runs: Doubles, unit: Doubles, weights: Doubles, hyper: Doubles) -> tuple[float, Doubles]:
    """Minus the log marginal likelihood and log prior (up to a constant), with slopes (S + 2,).

    Rasmussen & Williams 5.8 and 5.9: d/dt = trace((K^-1 - pull pull') dK/dt) / 2.
    """
    from scipy.linalg import cho_solve

    covariance, by_distance = _covariance(runs, runs, hyper)
    factor, pull = _solved(covariance, unit, weights, float(hyper[-1]))
    likelihood = unit @ pull / 2 + np.log(np.diag(factor)).sum()
    inner = cho_solve((factor, True), np.eye(len(unit))) - np.outer(pull, pull)
    moved = inner * by_distance
    by_relevance = np.exp(hyper[:-2]) * ((moved.sum(axis=1) @ runs**2) - np.einsum("ij,ij->j", runs, moved @ runs))
    signal = (inner * (covariance - CONSTANT)).sum() / 2
    noise = np.exp(hyper[-1]) * (np.diag(inner) / weights).sum() / 2
    middles, widths = _prior(runs.shape[1])
    off = (hyper - middles) / widths
    slopes = np.concatenate([by_relevance, [signal, noise]]) + off / widths
    return float(likelihood + (off**2).sum() / 2), slopes

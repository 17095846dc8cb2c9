"""Errors of a law that was fitted by penalised least squares: of its coefficients and of one more run.

With slopes J (n, d) of the predictions by coefficient, weights W and a penalty matrix P, to first order

    H = J'WJ + P,   degrees of freedom = trace(H^-1 J'WJ),   noise^2 = sum w r^2 / (n - freedom),
    variance of a prediction with slopes g:  noise^2 g'H^-1 g,   of one more run:  noise^2 (1 + g'H^-1 g).

Exact where the law is linear in its coefficients (the Bayesian view of the ridge, Rasmussen & Williams 2006, 2.1), the
delta method elsewhere.
"""

from dataclasses import dataclass

import numpy as np

from stages.mixture.predictors.predictor import COVERAGE, Doubles


@dataclass(frozen=True, eq=False)
class Errors:
    """How far off predictions and runs can be."""

    covariance: Doubles
    """(d, d) of the coefficients."""
    noise: float
    """Standard deviation of a run around the law."""
    left: float
    """Degrees of freedom that the noise was measured with, >= 1."""

    def standard(self, slopes: Doubles) -> Doubles:
        """(n,) standard errors of predictions with slopes (n, d)."""
        found: Doubles = np.sqrt(np.maximum(np.einsum("ij,jk,ik->i", slopes, self.covariance, slopes), 0.0))
        return found

    def interval(self, predicted: Doubles, slopes: Doubles) -> Doubles:
        """(n, 2) for predictions (n,) with slopes by coefficient (n, d)."""
        from scipy.stats import t

        reach = t.ppf((1 + COVERAGE) / 2, self.left) * np.hypot(self.standard(slopes), self.noise)
        ends: Doubles = np.stack([predicted - reach, predicted + reach], axis=1)
        return ends


def errors_of(slopes: Doubles, residuals: Doubles, weights: Doubles, penalty: Doubles) -> Errors:
    """Errors at a fit with slopes (n, d), residuals (n,), weights (n,) of mean 1 and penalty (d, d)."""
    information = slopes.T @ (slopes * weights[:, None])
    inverse: Doubles = np.linalg.pinv(information + penalty, hermitian=True).astype(np.float64)
    runs = float((weights > 0).sum())
    left = max(runs - float(np.einsum("ij,ji->", inverse, information)), 1.0)
    noise = float(np.sqrt((weights * residuals**2).sum() / left))
    return Errors(noise**2 * inverse, noise, left)

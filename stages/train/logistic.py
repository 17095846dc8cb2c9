"""Multinomial logistic regression with fixed offsets of the logits, exactly: convex, in float64, from zero weights."""

import numpy as np
import numpy.typing as npt

from schemas.errors import CuveeError

Doubles = npt.NDArray[np.float64]
TOLERANCE = 1e-8
STEPS = 2000


def fit_logistic(
    features: Doubles, labels: npt.NDArray[np.int64], classes: int, penalty: float, offsets: Doubles | None = None
) -> tuple[Doubles, Doubles]:
    """(L, d) weights and (L,) bias that minimise sum_i CE(y_i, W x_i + b + o_i) + penalty / 2 ||W||^2, by L-BFGS.

    Args:
        features: (n, d).
        labels: (n,) in [0, classes).
        classes: L.
        penalty: > 0, of the weights alone.
        offsets: (n, L) added to the logits; default: none.

    Raises:
        CuveeError: the minimum was not reached.
    """
    from scipy.optimize import minimize

    rows, width = features.shape
    aim = np.zeros((rows, classes))
    aim[np.arange(rows), labels] = 1.0
    fixed = np.zeros((1, classes)) if offsets is None else offsets

    def value(flat: Doubles) -> tuple[float, Doubles]:
        weights, bias = flat[:-classes].reshape(classes, width), flat[-classes:]
        logits = features @ weights.T + bias + fixed
        logits -= logits.max(axis=1, keepdims=True)
        sums = np.exp(logits).sum(axis=1, keepdims=True)
        wrong = np.exp(logits) / sums - aim
        loss = float((np.log(sums[:, 0]) - logits[np.arange(rows), labels]).sum())
        slope = np.concatenate([(wrong.T @ features + penalty * weights).ravel(), wrong.sum(axis=0)])
        return loss + penalty / 2 * float(np.square(weights).sum()), slope

    start = np.zeros(classes * width + classes)
    options = {"maxiter": STEPS, "maxcor": 20, "ftol": 1e-12, "gtol": TOLERANCE * max(rows, 1)}
    found = minimize(value, start, jac=True, method="L-BFGS-B", options=options)
    if not np.isfinite(found.fun) or found.nit >= STEPS:
        raise CuveeError(f"a linear classifier of {rows} rows did not settle in {found.nit} steps; scale its features")
    return found.x[:-classes].reshape(classes, width), found.x[-classes:]

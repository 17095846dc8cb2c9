"""What each source buys: how the objective moves when a little more of it is drawn, and less of all others."""

import numpy as np

from stages.mixture.proposer import Law, Metric
from stages.mixture.proposer.box import Doubles

STEP = 0.02
"""Share that moves, for laws without slopes."""


def marginal(metrics: tuple[Metric, ...], shares: Doubles) -> Doubles:
    """(S,) d objective / d p_i at shares (S,), less its mean under the shares; below 0: more of the source helps.

    The directional derivative toward one source alone, so the mean with weights `shares` is 0. Laws without slopes are
    asked `STEP` further on, and the mean is taken off. The prior is no part of it: it says nothing of the data.
    """
    total = np.zeros(len(shares))
    for metric in metrics:
        if metric.weight:
            slope = _slope(metric.law, shares)
            total += metric.weight / metric.scale * (slope - slope @ shares)
    return total


def _slope(law: Law, shares: Doubles) -> Doubles:
    if law.smooth:
        slope: Doubles = law.gradient(shares[None])[0]
        return slope
    toward = (1 - STEP) * shares + STEP * np.eye(len(shares))
    rise: Doubles = (law.predict(toward) - law.predict(shares[None])) / STEP
    return rise

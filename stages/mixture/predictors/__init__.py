"""Laws of a metric over mixtures, fitted to pilot runs; which one a metric gets is decided by mixtures left out."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from schemas.errors import CuveeError
from stages.mixture.predictors.choice import Choice, best_law
from stages.mixture.predictors.exponential_law import ExponentialLaw, fit_exponential_law
from stages.mixture.predictors.gaussian_process import GaussianProcess, fit_gaussian_process
from stages.mixture.predictors.gradient_boosting import GradientBoosting, fit_gradient_boosting
from stages.mixture.predictors.linear import Linear, fit_linear
from stages.mixture.predictors.log_linear import LogLinear, fit_log_linear
from stages.mixture.predictors.predictor import Doubles, FitFunction, Integers, Laws, Predictor
from stages.mixture.predictors.projektor import Projektor, fit_projektor, projektor
from stages.mixture.predictors.scale_projection import ScaleProjection, scale_projection
from stages.mixture.predictors.stacking import Stacked, stack

PREDICTORS: Mapping[str, FitFunction] = MappingProxyType(
    {
        "linear": fit_linear,
        "log_linear": fit_log_linear,
        "exponential_law": fit_exponential_law,
        "gaussian_process": fit_gaussian_process,
        "gradient_boosting": fit_gradient_boosting,
    }
)
"""By name, simplest first. projektor's law is fitted by `projektor(distance)`: it needs more than shares."""
PARAMETRIC = ("linear", "log_linear", "exponential_law")
"""Those whose form holds beyond the runs: all convex, and to be preferred for models far larger than the pilots'."""


def chosen(
    mixtures: Doubles, values: Doubles, groups: Integers, names: Sequence[str] | None = None, seed: int = 0
) -> Choice:
    """One of `names` (all of `PREDICTORS`) for one metric, by mixtures left out; see `best_law`."""
    return best_law(_named(names), mixtures, values, groups, seed)


def stacked(
    mixtures: Doubles, values: Doubles, groups: Integers, names: Sequence[str] | None = None, seed: int = 0
) -> Choice:
    """All of `names` (of `PREDICTORS`) averaged for one metric, weighted by mixtures left out; see `stack`."""
    return stack(_named(names), mixtures, values, groups, seed)


def _named(names: Sequence[str] | None) -> Laws:
    """Simplest first.

    Raises:
        CuveeError: an unknown name.
    """
    if strange := sorted(set(names or ()) - set(PREDICTORS)):
        raise CuveeError(f"no law is called {strange[0]!r}; there are {', '.join(PREDICTORS)}")
    return {name: fit for name, fit in PREDICTORS.items() if names is None or name in names}


__all__ = [
    "PARAMETRIC",
    "PREDICTORS",
    "Choice",
    "ExponentialLaw",
    "FitFunction",
    "GaussianProcess",
    "GradientBoosting",
    "Laws",
    "Linear",
    "LogLinear",
    "Predictor",
    "Projektor",
    "ScaleProjection",
    "Stacked",
    "chosen",
    "fit_exponential_law",
    "fit_gaussian_process",
    "fit_gradient_boosting",
    "fit_linear",
    "fit_log_linear",
    "fit_projektor",
    "projektor",
    "scale_projection",
    "stacked",
]

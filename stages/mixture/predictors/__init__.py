"""Laws of a metric over mixtures, fitted to pilot runs; which one a metric gets is decided by mixtures left out."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from stages.mixture.predictors.choice import Choice, best_law
from stages.mixture.predictors.linear import Linear, fit_linear
from stages.mixture.predictors.log_linear import LogLinear, fit_log_linear
from stages.mixture.predictors.predictor import Doubles, FitFunction, Integers, Laws, Predictor

PREDICTORS: Mapping[str, FitFunction] = MappingProxyType({"linear": fit_linear, "log_linear": fit_log_linear})
"""By name, simplest first: ties go to the one that comes first."""


def chosen(
    mixtures: Doubles,
    values: Doubles,
    groups: Integers,
    names: Sequence[str] | None = None,
    seed: int = 0,
) -> Choice:
    """The best of `names` (all of `PREDICTORS`) for one metric, over mixtures left out; see `best_law`."""
    laws = {name: PREDICTORS[name] for name in names or PREDICTORS}
    return best_law(laws, mixtures, values, groups, seed)


__all__ = [
    "PREDICTORS",
    "Choice",
    "FitFunction",
    "Laws",
    "Linear",
    "LogLinear",
    "Predictor",
    "chosen",
    "fit_linear",
    "fit_log_linear",
]

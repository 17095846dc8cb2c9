"""Which law a metric gets: the one that says best what mixtures it has not seen reached.

Cross-validation over mixtures: every run is predicted by laws fitted without any run of its mixture.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from schemas.errors import CuveeError
from stages.mixture.predictors.folds import folds
from stages.mixture.predictors.predictor import Doubles, FitFunction, Integers, Predictor

FOLDS = 10


@dataclass(frozen=True, eq=False)
class Choice:
    """The law of one metric, with what it was chosen over."""

    name: str
    """Of the law; `stacked` where it is several."""
    predictor: Predictor
    """Fitted to all runs."""
    scores: Mapping[str, float]
    """Root mean squared error of every law that was tried, over mixtures left out."""
    held_out: Mapping[str, Doubles]
    """(n,) by law: what it predicted for each run while that run's mixture was left out."""
    fit: FitFunction
    """Fits the same kind again."""

    def refitted(self, mixtures: Doubles, values: Doubles, weights: Doubles | None, seed: int) -> Predictor:
        """The same kind of law for other or reweighted runs, tuned as this one is."""
        return self.fit(mixtures, values, weights=weights, seed=seed, like=self.predictor)


def left_out(
    laws: Mapping[str, FitFunction], mixtures: Doubles, values: Doubles, groups: Integers, seed: int
) -> dict[str, Doubles]:
    """Law -> (n,) predictions for runs whose mixture was left out."""
    found = {name: np.empty(len(values)) for name in laws}
    for learned, rest in folds(groups, FOLDS, seed):
        for name, fit in laws.items():
            found[name][rest] = fit(mixtures[learned], values[learned], seed=seed).predict(mixtures[rest])
    return found


def root_mean_square(errors: Doubles) -> float:
    """Of (n,) errors."""
    return float(np.sqrt(np.mean(errors**2)))


def best_law(
    laws: Mapping[str, FitFunction], mixtures: Doubles, values: Doubles, groups: Integers, seed: int
) -> Choice:
    """The law with the lowest error over mixtures left out; ties to the first.

    Raises:
        CuveeError: no law to choose from, or fewer than three mixtures to choose by.
    """
    refuse_choice(list(laws), groups)
    held_out = left_out(laws, mixtures, values, groups, seed)
    scores = {name: root_mean_square(predicted - values) for name, predicted in held_out.items()}
    name = min(scores, key=lambda law: scores[law])
    return Choice(name, laws[name](mixtures, values, seed=seed), scores, held_out, laws[name])


def refuse_choice(names: Sequence[str], groups: Integers) -> None:
    """A choice takes laws to choose from and three mixtures.

    Raises:
        CuveeError: otherwise.
    """
    if not names:
        raise CuveeError("no law to choose from: name at least one")
    if (found := len(np.unique(groups))) < 3:
        raise CuveeError(f"to leave mixtures out takes three of them, found {found}; run more trials")

"""Which law a metric gets: the simplest of those that say best what mixtures they have not seen reached.

Cross-validation over mixtures: every run is predicted by laws fitted, and tuned, without any run of its mixture. A law
is as good as the best if its squared errors are larger by no more than one standard error of the difference, mixture
by mixture (Breiman et al. 1984, 3.4.3, on paired errors). Among those, the first in the order given is taken. The
reason to prefer it is what cross-validation at one budget cannot see: laws of few coefficients keep their order of
mixtures when the model grows, what follows every bend of the small model's losses does not.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from schemas.errors import CuveeError
from stages.mixture.predictors.folds import folds
from stages.mixture.predictors.predictor import Doubles, FitFunction, Integers, Predictor

FOLDS = 5


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
    """The first of `laws`, simplest first, that is as good as the best over mixtures left out.

    Raises:
        CuveeError: no law to choose from, or fewer than three mixtures to choose by.
    """
    refuse_choice(list(laws), groups)
    held_out = left_out(laws, mixtures, values, groups, seed)
    scores = {name: root_mean_square(predicted - values) for name, predicted in held_out.items()}
    name = simplest({name: (predicted - values) ** 2 for name, predicted in held_out.items()}, groups)
    return Choice(name, laws[name](mixtures, values, seed=seed), scores, held_out, laws[name])


def simplest(squared: Mapping[str, Doubles], groups: Integers) -> str:
    """The first law whose squared errors (n,) exceed the best law's by one standard error of the difference at most."""
    best = min(squared, key=lambda law: float(squared[law].mean()))
    return next(law for law in squared if _as_good(squared[law] - squared[best], groups))


def _as_good(differences: Doubles, groups: Integers) -> bool:
    """Whether (n,) differences have a mean within one standard error of 0; repeats of a mixture are one observation."""
    ids = np.unique(groups, return_inverse=True)[1].reshape(-1)
    by_mixture = np.bincount(ids, differences) * (ids.max() + 1) / len(ids)
    return bool(by_mixture.mean() <= by_mixture.std(ddof=1) / np.sqrt(len(by_mixture)))


def refuse_choice(names: Sequence[str], groups: Integers) -> None:
    """A choice takes laws to choose from and three mixtures.

    Raises:
        CuveeError: otherwise.
    """
    if not names:
        raise CuveeError("no law to choose from: name at least one")
    if (found := len(np.unique(groups))) < 3:
        raise CuveeError(f"to leave mixtures out takes three of them, found {found}; run more trials")

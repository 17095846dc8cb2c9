"""Gradient-boosted trees on shares, RegMix's predictor (arXiv:2407.01492): LightGBM, learning rate 0.01.

RegMix grows up to 1,000 trees and stops once its test set has not gained for 3 rounds. Here nothing that is predicted
is looked at: the number of trees is the best one of 1 to 1,000 on an eighth of the mixtures among those it is fitted
to, and as many are then grown on all of them. No patience: with few runs 3 rounds stop far too soon.

Not smooth and not convex. Intervals by CV+ over mixtures (Barber et al. 2021, arXiv:1905.02928, section 3): quantiles
of the folds' predictions plus and minus their errors on what each left out.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from schemas.errors import CuveeError
from stages.mixture.predictors.folds import folds, mixture_groups
from stages.mixture.predictors.predictor import COVERAGE, Doubles, Integers, Predictor, checked

TREES = 1000
LEARNING_RATE = 0.01
EIGHTHS = 8
FOLDS = 8
_SEED_LIMIT = 2**31 - 1


@dataclass(frozen=True, eq=False)
class GradientBoosting:
    """A fitted forest, with the runs that its intervals need."""

    forest: Any
    trees: int
    mixtures: Doubles
    values: Doubles
    weights: Doubles
    seed: int
    convex: bool = False
    smooth: bool = False

    def predict(self, mixtures: Doubles) -> Doubles:
        """The sum of the trees."""
        return _asked(self.forest, mixtures)

    def interval(self, mixtures: Doubles) -> Doubles:
        """CV+."""
        forests, fold_of, errors = self._left_out
        found = np.stack([_asked(forest, mixtures) for forest in forests], axis=1)[:, fold_of]
        low = _rank(found - errors, (1 - COVERAGE) / 2 * (len(errors) + 1))
        high = -_rank(-found - errors, (1 - COVERAGE) / 2 * (len(errors) + 1))
        return np.stack([low, high], axis=1)

    def error(self, mixtures: Doubles) -> Doubles:
        """Jackknife over the folds."""
        forests = self._left_out[0]
        found = np.stack([_asked(forest, mixtures) for forest in forests], axis=1)
        spread: Doubles = found.std(axis=1) * np.sqrt(len(forests) - 1)
        return spread

    def gradient(self, mixtures: Doubles) -> Doubles:
        """There is none."""
        raise CuveeError("trees have no slopes: simulate mixtures instead, or choose a smooth law")

    @cached_property
    def _left_out(self) -> tuple[list[Any], Integers, Doubles]:
        """The folds' forests, each run's fold and its absolute error there."""
        forests: list[Any] = []
        fold_of, errors = np.empty(len(self.values), np.int64), np.empty(len(self.values))
        for learned, left_out in folds(mixture_groups(self.mixtures), FOLDS, self.seed):
            forest = _grown(self.mixtures[learned], self.values[learned], self.weights[learned], self.trees, self.seed)
            errors[left_out] = np.abs(self.values[left_out] - _asked(forest, self.mixtures[left_out]))
            fold_of[left_out] = len(forests)
            forests.append(forest)
        return forests, fold_of, errors.astype(np.float64)


def fit_gradient_boosting(
    mixtures: Doubles,
    values: Doubles,
    *,
    weights: Doubles | None = None,
    seed: int = 0,
    like: Predictor | None = None,
) -> GradientBoosting:
    """Fit by LightGBM on one thread; see `FitFunction`."""
    counted = checked(mixtures, values, weights)
    trees = like.trees if isinstance(like, GradientBoosting) else _chosen_trees(mixtures, values, counted, seed)
    forest = _grown(mixtures, values, counted, trees, seed)
    return GradientBoosting(forest, trees, mixtures, values, counted, seed)


def _grown(mixtures: Doubles, values: Doubles, weights: Doubles, trees: int, seed: int) -> Any:
    import lightgbm

    return lightgbm.train(_settings(seed), lightgbm.Dataset(mixtures, values, weight=weights), trees)


def _settings(seed: int) -> dict[str, Any]:
    return {
        "objective": "regression",
        "metric": "l2",
        "learning_rate": LEARNING_RATE,
        "seed": seed % _SEED_LIMIT,
        "deterministic": True,
        "force_row_wise": True,  # which of the two is faster would be measured, and they round differently
        "num_threads": 1,
        "verbosity": -1,
    }


def _chosen_trees(mixtures: Doubles, values: Doubles, weights: Doubles, seed: int) -> int:
    """How many trees an eighth of the mixtures, left out, is said best by; ties to fewer."""
    import lightgbm

    learned, held = next(iter(folds(mixture_groups(mixtures), EIGHTHS, seed)))
    grown_on = lightgbm.Dataset(mixtures[learned], values[learned], weight=weights[learned])
    asked = lightgbm.Dataset(mixtures[held], values[held], weight=weights[held], reference=grown_on)
    curve: dict[str, dict[str, list[float]]] = {}
    record = lightgbm.record_evaluation(curve)
    lightgbm.train(_settings(seed), grown_on, TREES, valid_sets=[asked], valid_names=["held"], callbacks=[record])
    return int(np.argmin(curve["held"]["l2"])) + 1


def _asked(forest: Any, mixtures: Doubles) -> Doubles:
    predicted: Doubles = np.asarray(forest.predict(mixtures, num_threads=1), np.float64)
    return predicted


def _rank(values: Doubles, rank: float) -> Doubles:
    """(n,) of (n, m) the value with that rank from below, counted from 1; the lowest where the rank is below 1."""
    place = max(int(np.floor(rank)) - 1, 0)
    ranked: Doubles = np.partition(values, place, axis=1)[:, place]
    return ranked

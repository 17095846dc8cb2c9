"""Several laws in one: their average with weights >= 0 that sum to 1 (Breiman 1996, "Stacked regressions").

The weights are those with the lowest squared error over mixtures left out, where every law predicts runs it has not
seen. Non-negative weights keep the average between its laws, and convex where all that count are. Weights below a
hundredth are dropped, so that a law that adds nothing is not asked.

Intervals: the laws' own widths, averaged, times the factor with which they would have held 95 % of the runs that were
left out (split conformal, normalised: Lei et al. 2018, section 5.2).
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from stages.mixture.predictors.choice import Choice, left_out, refuse_choice, root_mean_square
from stages.mixture.predictors.predictor import COVERAGE, Doubles, FitFunction, Integers, Predictor

LEAST = 0.01
"""Weights below are dropped."""
NAME = "stacked"


@dataclass(frozen=True, eq=False)
class Stacked:
    """A fitted average of laws."""

    laws: Mapping[str, Predictor]
    weights: Mapping[str, float]
    """> 0, summing to 1."""
    widening: float
    """Of the laws' own intervals."""

    @property
    def convex(self) -> bool:
        """If all laws are."""
        return all(law.convex for law in self.laws.values())

    @property
    def smooth(self) -> bool:
        """If all laws are."""
        return all(law.smooth for law in self.laws.values())

    def predict(self, mixtures: Doubles) -> Doubles:
        """The average."""
        return self._average({name: law.predict(mixtures) for name, law in self.laws.items()})

    def interval(self, mixtures: Doubles) -> Doubles:
        """Normalised conformal."""
        predicted = self.predict(mixtures)
        reach = self.widening * self._average({name: _reach(law, mixtures) for name, law in self.laws.items()})
        return np.stack([predicted - reach, predicted + reach], axis=1)

    def error(self, mixtures: Doubles) -> Doubles:
        """The laws' errors, averaged: as if they all erred together."""
        return self._average({name: law.error(mixtures) for name, law in self.laws.items()})

    def gradient(self, mixtures: Doubles) -> Doubles:
        """The average of the slopes."""
        return self._average({name: law.gradient(mixtures) for name, law in self.laws.items()})

    def _average(self, found: Mapping[str, Doubles]) -> Doubles:
        average: Doubles = np.sum([self.weights[name] * values for name, values in found.items()], axis=0)
        return average


def stack(laws: Mapping[str, FitFunction], mixtures: Doubles, values: Doubles, groups: Integers, seed: int) -> Choice:
    """Stack the laws for one metric.

    Raises:
        CuveeError: no law, or fewer than three mixtures.
    """
    refuse_choice(list(laws), groups)
    held_out = left_out(laws, mixtures, values, groups, seed)
    weights = simplex_weights(np.stack(list(held_out.values()), axis=1), values)
    shares = {name: float(weight) for name, weight in zip(laws, weights, strict=True) if weight > 0}
    mixed = np.sum([share * held_out[name] for name, share in shares.items()], axis=0)
    fit = _StackFit({name: laws[name] for name in shares}, shares, np.abs(values - mixed))
    held_out = {**held_out, NAME: mixed}
    scores = {name: root_mean_square(predicted - values) for name, predicted in held_out.items()}
    return Choice(NAME, fit(mixtures, values, seed=seed), scores, held_out, fit)


@dataclass(frozen=True, eq=False)
class _StackFit:
    """Fits the laws again, with the weights that were found."""

    laws: Mapping[str, FitFunction]
    weights: Mapping[str, float]
    errors: Doubles
    """(n,) absolute, of runs left out."""

    def __call__(
        self,
        mixtures: Doubles,
        values: Doubles,
        *,
        weights: Doubles | None = None,
        seed: int = 0,
        like: Predictor | None = None,
    ) -> Stacked:
        before = like.laws if isinstance(like, Stacked) else {}
        found = {
            name: fit(mixtures, values, weights=weights, seed=seed, like=before.get(name))
            for name, fit in self.laws.items()
        }
        return Stacked(
            found, self.weights, like.widening if isinstance(like, Stacked) else self._widening(found, mixtures)
        )

    def _widening(self, laws: Mapping[str, Predictor], mixtures: Doubles) -> float:
        """The conformal quantile of errors in units of the laws' own reach."""
        reach = np.sum([self.weights[name] * _reach(law, mixtures) for name, law in laws.items()], axis=0)
        ratios = np.sort(self.errors / np.maximum(reach, 1e-300))
        return float(ratios[min(int(np.ceil(COVERAGE * (len(ratios) + 1))), len(ratios)) - 1])


def _reach(law: Predictor, mixtures: Doubles) -> Doubles:
    """(n,) half the width of its intervals."""
    ends = law.interval(mixtures)
    half: Doubles = (ends[:, 1] - ends[:, 0]) / 2
    return half


def simplex_weights(predicted: Doubles, values: Doubles) -> Doubles:
    """(L,) weights >= 0 summing to 1 with the lowest squared error of predicted (n, L) @ weights.

    Non-negative least squares with one heavy row that holds the sum; then those below `LEAST` go and it is solved again
    among the others.
    """
    counted = np.arange(predicted.shape[1])
    while True:
        found = _solved(predicted[:, counted], values)
        if (found >= LEAST).all():
            break
        counted = counted[found >= LEAST]
    weights = np.zeros(predicted.shape[1])
    weights[counted] = found
    return weights


def _solved(predicted: Doubles, values: Doubles) -> Doubles:
    """On the simplex, predicted @ w - values = (predicted - values 1') w: that norm is what is minimised."""
    from scipy.optimize import nnls

    wrong = predicted - values[:, None]
    heavy = 1e4 * (float(np.abs(wrong).max()) or 1.0) * np.sqrt(len(values))
    found, _ = nnls(np.vstack([wrong, np.full(wrong.shape[1], heavy)]), np.append(np.zeros(len(values)), heavy))
    shares: Doubles = found / found.sum()
    return shares

"""The law of each metric: chosen by mixtures left out, fitted to all runs, asked in shares of the sources."""

from collections.abc import Mapping
from dataclasses import dataclass

from stages.mixture.pilot_trials.runs import Runs
from stages.mixture.predictors import PREDICTORS, Choice, Predictor, chosen
from stages.mixture.trials_table.table import Doubles

CHOSEN = "chosen"


@dataclass(frozen=True, eq=False)
class FittedLaw:
    """A predictor of one metric as the proposer asks it: over the sources of the table."""

    predictor: Predictor
    members: Doubles | None = None
    """(S, K) where the predictor is a function of groups' shares: 1 where a source belongs to a group."""

    @property
    def convex(self) -> bool:
        """Of `predict`, over the simplex."""
        return self.predictor.convex

    @property
    def smooth(self) -> bool:
        """Whether `gradient` answers."""
        return self.predictor.smooth

    def predict(self, mixtures: Doubles) -> Doubles:
        """(n, S) -> (n,)."""
        return self.predictor.predict(self._grouped(mixtures))

    def interval(self, mixtures: Doubles) -> Doubles:
        """(n, S) -> (n, 2): 95 % of runs."""
        return self.predictor.interval(self._grouped(mixtures))

    def gradient(self, mixtures: Doubles) -> Doubles:
        """(n, S) -> (n, S)."""
        slopes = self.predictor.gradient(self._grouped(mixtures))
        return slopes if self.members is None else slopes @ self.members.T

    def _grouped(self, mixtures: Doubles) -> Doubles:
        return mixtures if self.members is None else mixtures @ self.members


@dataclass(frozen=True, eq=False)
class MetricFit:
    """What is known of one metric."""

    runs: Runs
    choice: Choice
    members: Doubles | None

    @property
    def law(self) -> FittedLaw:
        """Fitted to all runs."""
        return FittedLaw(self.choice.predictor, self.members)

    @property
    def name(self) -> str:
        """Of the law."""
        return self.choice.name

    @property
    def scores(self) -> Mapping[str, float]:
        """Of every law that was tried: its error over mixtures left out."""
        return self.choice.scores

    @property
    def held_out(self) -> Doubles:
        """(n,) what the law said of each run while its mixture was left out."""
        return self.choice.held_out[self.choice.name]

    def refitted(self, weights: Doubles, seed: int) -> FittedLaw:
        """The same kind of law for runs that count by weights (n,)."""
        found = self.choice.refitted(self.runs.shares, self.runs.values, weights, seed)
        return FittedLaw(found, self.members)


def law_names() -> tuple[str, ...]:
    """What `predictor` may be."""
    return (CHOSEN, *sorted(PREDICTORS))


def fitted(runs: Runs, predictor: str, members: Doubles | None, seed: int) -> MetricFit:
    """The law of one metric."""
    names = None if predictor == CHOSEN else [predictor]
    return MetricFit(runs, chosen(runs.shares, runs.values, runs.groups, names, seed), members)

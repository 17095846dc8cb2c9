"""The law of each metric: chosen by mixtures left out, fitted to all runs, asked in shares of the sources."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from schemas.errors import CuveeError
from stages.mixture.pilot_trials.runs import Runs
from stages.mixture.predictors import (
    PREDICTORS,
    Choice,
    Predictor,
    ScaleProjection,
    chosen,
    scale_projection,
    stacked,
)
from stages.mixture.trials_table.table import Doubles

CHOSEN, STACKED = "chosen", "stacked"


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
    """Of the largest budget."""
    choice: Choice
    members: Doubles | None
    smaller: tuple[Runs, ...] = ()
    """Of the budgets that a projection goes through beside the largest."""
    projection: ScaleProjection | None = None

    @property
    def law(self) -> FittedLaw:
        """Fitted to all runs of the largest budget, or projected."""
        return FittedLaw(self.choice.predictor if self.projection is None else self.projection, self.members)

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
        """(n,) what the law said of each run of the largest budget while its mixture was left out."""
        return self.choice.held_out[self.choice.name]

    def refitted(self, weigh: Callable[[Runs], Doubles], seed: int) -> FittedLaw:
        """The same kind of law, projected with the same weights, for runs that count by `weigh`."""
        parts = (*self.smaller, self.runs)
        found = [self.choice.refitted(part.shares, part.values, weigh(part), seed) for part in parts]
        projected = found[-1] if self.projection is None else replace(self.projection, laws=tuple(found))
        return FittedLaw(projected, self.members)


def law_names() -> tuple[str, ...]:
    """What `predictor` may be."""
    return (CHOSEN, STACKED, *sorted(PREDICTORS))


def fitted(
    by_budget: Sequence[Runs], predictor: str, members: Doubles | None, budget: int | None, seed: int
) -> MetricFit:
    """The law of one metric, from its runs by budget: chosen and fitted at the largest, or projected to `budget`.

    Raises:
        CuveeError: the projection's interval swallows the range of its predictions.
    """
    runs = by_budget[-1]
    choose = stacked if predictor == STACKED else chosen
    names = None if predictor in (CHOSEN, STACKED) else [predictor]
    choice = choose(runs.shares, runs.values, runs.groups, names, seed)
    if budget is None:
        return MetricFit(runs, choice, members)
    smaller = tuple(by_budget[:-1])
    laws = {part.budget: choice.refitted(part.shares, part.values, None, seed) for part in smaller}
    laws[runs.budget] = choice.predictor
    return MetricFit(runs, choice, members, smaller, _projected(runs, laws, budget))


def _projected(runs: Runs, laws: Mapping[int, Predictor], budget: int) -> ScaleProjection:
    try:
        return scale_projection(laws, budget, runs.shares)
    except CuveeError as error:
        raise CuveeError(f"project_to, `{runs.metric}`: {error}") from error

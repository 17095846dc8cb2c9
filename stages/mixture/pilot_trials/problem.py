"""What is minimised, apart from the laws: sources, limits, prior, weights, and the mixture that ceilings come from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from stages.mixture.limits import Bounds
from stages.mixture.pilot_trials.laws import FittedLaw
from stages.mixture.proposer import Box, Limits, Metric, Program, program
from stages.mixture.proposer.box import divergence
from stages.mixture.trials_table.table import Doubles


@dataclass(frozen=True, eq=False)
class Scale:
    """How a metric counts in the objective: its weight, and what is subtracted and divided by first."""

    weight: float
    origin: float
    spread: float


@dataclass(frozen=True, eq=False)
class Problem:
    """Everything but the laws."""

    sources: tuple[str, ...]
    """(S,) of the table."""
    names: tuple[str, ...]
    """(P,) those with rows to draw."""
    bounds: Bounds
    """Of the P sources."""
    prior: Doubles
    """(P,)"""
    strength: float
    basis: Doubles
    """(S, k) what can be mixed."""
    scales: Mapping[str, Scale]
    """By metric."""
    references: Mapping[str, Doubles]
    """(P,) each: `natural`, `uniform`, `prior`."""
    ceiling_at: str | None = None
    """The reference at which metrics have their ceilings."""

    @property
    def unit(self) -> str:
        """What the objective is measured in."""
        counting = [name for name, scale in self.scales.items() if scale.weight]
        if len(counting) == 1:
            return counting[0]
        return f"{len(counting)} metrics, in standard deviations of the runs"

    def full(self, shares: Doubles) -> Doubles:
        """(S,) from (P,): 0 for sources without rows."""
        wide = np.zeros(len(self.sources))
        wide[[self.sources.index(name) for name in self.names]] = shares
        return wide

    def narrow(self, shares: Doubles) -> Doubles:
        """(P,) from (S,)."""
        return shares[[self.sources.index(name) for name in self.names]]

    def metrics(self, laws: Mapping[str, FittedLaw]) -> tuple[Metric, ...]:
        """The metrics with their laws, and with ceilings if there is a reference."""
        return tuple(
            Metric(name, laws[name], scale.weight, scale.spread, scale.origin, self._ceiling(laws[name]))
            for name, scale in self.scales.items()
        )

    def program(self, laws: Mapping[str, FittedLaw], bounded: bool) -> Program:
        """The program within the limits, or without them."""
        ones, nothing = np.ones(len(self.names)), ("",) * len(self.sources)
        lower = self.full(self.bounds.lower if bounded else 0 * ones)
        upper = self.full(self.bounds.upper if bounded else ones)
        limits = Limits(self._wide(self.bounds.why_lower), self._wide(self.bounds.why_upper))
        return program(
            self.metrics(laws),
            Box(lower, upper),
            self.full(self.prior),
            self.strength,
            self.basis,
            limits if bounded else Limits(nothing, nothing),
        )

    def objective(self, laws: Mapping[str, FittedLaw], shares: Doubles) -> float:
        """At shares (S,) of sources that have rows: the weighted metrics, and the prior's part."""
        data = sum(
            scale.weight * (float(laws[name].predict(shares[None])[0]) - scale.origin) / scale.spread
            for name, scale in self.scales.items()
            if scale.weight
        )
        pull = self.strength * divergence(self.narrow(shares), self.prior) if self.strength else 0.0
        return float(data + pull)

    def _ceiling(self, law: FittedLaw) -> float | None:
        if self.ceiling_at is None:
            return None
        return float(law.predict(self.full(self.references[self.ceiling_at])[None])[0])

    def _wide(self, why: Sequence[str]) -> tuple[str, ...]:
        named = dict(zip(self.names, why, strict=True))
        return tuple(named.get(source, "") for source in self.sources)


def scales_of(weights: Mapping[str, float], values: Mapping[str, Doubles]) -> dict[str, Scale]:
    """A single metric counts in its own unit, several in standard deviations of the runs from their mean."""
    counting = [name for name, weight in weights.items() if weight]
    if len(counting) == 1:
        units = {name: Scale(weights[name], 0.0, 1.0) for name in counting}
        rest = {name: Scale(0.0, 0.0, _spread(values[name])) for name in weights if name not in counting}
        return {**units, **rest}
    return {name: Scale(weight, float(values[name].mean()), _spread(values[name])) for name, weight in weights.items()}


def _spread(values: Doubles) -> float:
    return float(values.std()) or 1.0

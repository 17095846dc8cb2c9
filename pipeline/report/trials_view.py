"""Pilot runs and the laws fitted to them, as the report shows them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

Values = npt.NDArray[np.float64]


@dataclass(frozen=True)
class LawView:
    """One metric: what runs measured, and what the law says of each run when its mixture was left out of the fit."""

    metric: str
    law: str
    measured: Values
    """(n,) may hold NaN for runs that were not measured."""
    predicted: Values
    """(n,)"""
    weight: float = 0.0
    """In the objective."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """Name -> value: agreement, noise, scores of other laws."""


@dataclass(frozen=True)
class TrialsView:
    """The section on pilot runs."""

    sources: tuple[str, ...]
    shares: Values
    """(n, S) of each run."""
    objective: Values
    """(n,) measured; lower is better; NaN where a run lacks a metric."""
    proposed: Mapping[str, tuple[float, ...]]
    """Name -> (S,) shares: `exported`, `natural`."""
    laws: tuple[LawView, ...] = ()
    marginal: Mapping[str, float] = field(default_factory=dict)
    """Source -> change of the objective per share moved to it from all; below 0: more of it helps."""
    unit: str = ""
    """What the objective is measured in."""
    facts: Mapping[str, Any] = field(default_factory=dict)


def trials_view(mixture: Mapping[str, Any]) -> TrialsView | None:
    """From a mixture as run.json has it; None where no pilot runs are behind it."""
    evidence = mixture["evidence"]
    trials = evidence.get("trials")
    if trials is None:
        return None
    sources = tuple(trials["shares"])
    proposed = {"exported": mixture["capped"], **evidence["mixtures"]}
    return TrialsView(
        sources,
        np.array([trials["shares"][name] for name in sources], np.float64).T,
        _numbers(trials["objective"]),
        {name: tuple(shares.get(source, 0.0) for source in sources) for name, shares in proposed.items()},
        tuple(_law(name, line) for name, line in evidence["metrics"].items()),
        evidence["marginal"],
        evidence["unit"],
        evidence["facts"],
    )


def _law(name: str, line: Mapping[str, Any]) -> LawView:
    measured, predicted = _numbers(line["measured"]), _numbers(line["predicted"])
    return LawView(name, line["law"], measured, predicted, line["weight"], line["facts"])


def _numbers(values: list[float | None]) -> Values:
    return np.array([np.nan if value is None else value for value in values], np.float64)

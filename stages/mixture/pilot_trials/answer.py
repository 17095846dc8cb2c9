"""The mixture with its evidence: shares, objective, what binds, what sources buy, how far to trust the laws."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from stages.fit import Fit
from stages.mixer import Mixture
from stages.mixture.fitted_shares import gone, shares_of
from stages.mixture.pilot_trials.agreement import agreement
from stages.mixture.pilot_trials.laws import MetricFit
from stages.mixture.pilot_trials.marginal import marginal
from stages.mixture.pilot_trials.problem import Problem
from stages.mixture.proposer import Proposal
from stages.mixture.trials_table import TrialsTable
from stages.mixture.trials_table.table import Doubles

ROUNDING = 1e-12
SHOWN = 1000
"""Runs that the record and the report hold; of more, an even selection."""


def learned(problem: Problem, proposals: Mapping[str, Proposal], ends: Doubles, answers: int) -> Fit:
    """What a later run may pin: shares by source, their intervals, how they were found."""
    names = problem.names
    shares = {
        which: dict(zip(names, problem.narrow(found.shares).tolist(), strict=True))
        for which, found in proposals.items()
    }
    facts = {
        "intervals": dict(zip(names, ends.round(6).tolist(), strict=True)),
        "gap": {which: found.gap for which, found in proposals.items()},
        "method": {which: found.method for which, found in proposals.items()},
        "answers": answers,
    }
    return Fit(facts={**shares, **facts})


def answer(problem: Problem, fits: Mapping[str, MetricFit], fit: Fit, table: TrialsTable, replicates: int) -> Mixture:
    """The mixture of a fit, judged by the laws there are."""
    laws = {name: found.law for name, found in fits.items()}
    names = problem.names
    points = {which: shares_of(fit, which, names) for which in ("ideal", "capped")}
    references = {"natural": problem.references["natural"], "uniform": problem.references["uniform"]}
    mixtures = {**points, **references}
    values = {which: problem.objective(laws, problem.full(shares)) for which, shares in sorted(mixtures.items())}
    slopes = problem.narrow(marginal(problem.metrics(laws), problem.full(points["capped"])))
    evidence = {
        "objective_name": f"predicted {problem.unit}",
        "unit": problem.unit,
        "mixtures": {which: _named(names, shares) for which, shares in references.items()},
        "marginal": _named(names, slopes),
        "metrics": {name: _line(problem, found, mixtures) for name, found in fits.items()},
        "trials": _runs(problem, fits, table),
        "facts": _facts(fit, replicates),
    }
    return Mixture(
        weights=_named(names, points["ideal"]),
        capped=_named(names, points["capped"]),
        intervals={name: tuple(fit.facts["intervals"][name]) for name in names},
        objective=values.pop("capped"),
        references=values,
        binding=(*problem.bounds.binding(points["capped"]), *_held(problem, fits, points["capped"])),
        evidence=evidence,
        fit=fit,
        notes=(*table.notes, *gone(fit, names)),
    )


def _named(names: tuple[str, ...], shares: Doubles) -> dict[str, float]:
    return dict(zip(names, shares.tolist(), strict=True))


def _held(problem: Problem, fits: Mapping[str, MetricFit], capped: Doubles) -> list[str]:
    """The metrics that are at their ceilings."""
    if problem.ceiling_at is None:
        return []
    reference = problem.full(problem.references[problem.ceiling_at])
    ends = np.stack([problem.full(capped), reference])
    predicted = {name: fit.law.predict(ends) for name, fit in fits.items()}
    return [
        f"no_worse_than {problem.ceiling_at}: {name}"
        for name, (here, there) in predicted.items()
        if here >= there - 1e-4 * problem.scales[name].spread
    ]


def _line(problem: Problem, fit: MetricFit, mixtures: Mapping[str, Doubles]) -> dict[str, Any]:
    """What the record says of one metric."""
    points = np.stack([problem.full(shares) for shares in mixtures.values()])
    predicted = np.column_stack([fit.law.predict(points), fit.law.interval(points)])
    shown = _shown(len(fit.runs.values))
    return {
        "weight": problem.scales[fit.runs.metric].weight,
        "law": fit.name,
        "scores": dict(fit.scores),
        "at": {which: line.tolist() for which, line in zip(mixtures, predicted, strict=True)},
        "measured": fit.runs.values[shown].tolist(),
        "predicted": fit.held_out[shown].tolist(),
        "facts": agreement(fit),
    }


def _runs(problem: Problem, fits: Mapping[str, MetricFit], table: TrialsTable) -> dict[str, Any]:
    """The runs with what they measured of the objective; null where one of its metrics is missing."""
    rows = np.unique(np.concatenate([fit.runs.rows for fit in fits.values()]))
    rows = rows[_shown(len(rows))]
    objective = np.zeros(len(rows))
    for name, scale in problem.scales.items():
        if scale.weight:
            values = table.values[rows, table.metrics.index(name)]
            objective += scale.weight * (values - scale.origin) / scale.spread
    shares = {source: table.shares[rows, place].tolist() for place, source in enumerate(table.sources)}
    return {
        "names": [table.trials[row] for row in rows],
        "budgets": table.budgets[rows].tolist(),
        "shares": shares,
        "objective": [None if np.isnan(value) else float(value) for value in objective],
    }


def _shown(count: int) -> Doubles:
    places: Doubles = np.unique(np.linspace(0, count - 1, min(SHOWN, count)).round().astype(int))
    return places


def _facts(fit: Fit, replicates: int) -> dict[str, Any]:
    answers = fit.facts["answers"]
    return {
        "found by": fit.facts["method"]["capped"],
        "certificate": _certificate(fit.facts["gap"]["capped"]),
        "intervals": f"Bayesian bootstrap over mixtures, {answers} of {replicates} replicates",
    }


def _certificate(gap: float | None) -> str:
    if gap is None:
        return "none: a law is not convex"
    return f"at most {gap:.2g} above the optimum" if gap > ROUNDING else "at the optimum, but for rounding"

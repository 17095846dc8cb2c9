"""The mixer `pilot_trials`: a table of runs to laws, laws to the optimum within limits, with intervals and margins."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from schemas.errors import ContractError, CuveeError, RecipeError
from stages.file_identity import Located, file_identity
from stages.fit import Fit
from stages.mixer import Mixer, Mixture, MixtureEvidence
from stages.mixture.limits import Limits
from stages.mixture.pilot_trials.answer import answer, learned
from stages.mixture.pilot_trials.intervals import intervals
from stages.mixture.pilot_trials.laws import CHOSEN, MetricFit, fitted, law_names
from stages.mixture.pilot_trials.metrics import weights_of
from stages.mixture.pilot_trials.problem import Problem, scales_of
from stages.mixture.pilot_trials.runs import Runs, keeps_ratios, refuse_few_budgets, runs_of
from stages.mixture.pilot_trials.sources import basis_of, refuse_others, refuse_reuse
from stages.mixture.proposer import propose
from stages.mixture.trials_table import TrialsTable, read_trials
from stages.mixture.trials_table.table import Doubles

Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class PilotTrials(Limits, Mixer):
    """The mixture that a table of pilot runs speaks for.

    The objective is the law of one metric in its own unit, or the weighted sum of several laws in standard deviations
    of the runs, plus the prior's part. Learned: ideal and capped shares with the intervals of the first. Pinned shares
    are not adjusted to new rows; the objective is always that of the table and the laws.
    """

    version: ClassVar[int] = 1

    kind: Literal["pilot_trials"] = "pilot_trials"
    trials: Located
    """A .csv or .parquet of runs, with the columns of `schemas.tables.TRIALS`."""
    predictor: str = CHOSEN
    """`chosen`: per metric, by mixtures left out; `stacked`; or one law for all metrics."""
    metrics: dict[str, Weight] | None = None
    """Weight per metric; 0 keeps it out of the objective, and under `no_worse_than`. Default: those of the target, all
    alike, or all there are."""
    no_worse_than: Literal["natural", "uniform", "prior"] | None = None
    """No metric named may be predicted above its value at this mixture."""
    project_to: Literal["export"] | Annotated[int, Field(ge=1)] | None = None
    """Samples to predict the metrics at, from runs at three budgets or more; `export`: as many as are exported."""
    reuse: dict[str, Weight] | None = None
    """Shares of old sources, whose ratios are kept; only the shares of the others are chosen."""
    bootstrap: int = Field(100, ge=20)
    """Replicates behind the intervals."""

    def columns(self) -> tuple[str, ...]:
        """None: it looks at no sample."""
        return ()

    def trials_file(self) -> Path:
        """The table."""
        return Path(self.trials)

    def identity(self) -> dict[str, Any]:
        """The settings, with the table by its content; nothing of a table that is not there yet."""
        there = self.trials_file().is_file()
        content = file_identity(self.trials_file()) if there else None
        return {**super().identity(), "trials": content}

    def check(self, sources: Sequence[str]) -> None:
        """Refuse a table that no law can be fitted to, and settings that do not go with it.

        Raises:
            RecipeError: unreadable table, other sources than the pool's, too few runs or budgets, unknown names.
        """
        if not self.trials_file().is_absolute():  # a recipe's path that leads nowhere, though one from here might
            raise RecipeError(f"there is no file {self.trials!r} beside the recipe; `cuvee trials RECIPE` makes one")
        table = read_trials(self.trials_file())
        self._refuse(table, sources)
        basis = basis_of(table.sources, table.sources, self.reuse)
        for metric in self._weights(table):
            self._runs(table, metric, _members(table, basis, self.reuse))

    def mix(self, evidence: MixtureEvidence) -> Mixture:
        """Weigh the sources that have surviving rows.

        Raises:
            CuveeError: nothing within the limits keeps every metric where `no_worse_than` wants it (says what
                collides), more samples than the caps allow, a source without a pinned weight, or what `check` refuses.
        """
        table, names = self._table(evidence), tuple(sorted(evidence.sources))
        budget = evidence.samples if self.project_to == "export" else self.project_to
        fits = self._fitted(table, budget, evidence.seed)
        problem = self._problem(table, names, fits, evidence)
        fit = self._learned(problem, fits, evidence.seed) if evidence.fit is None else evidence.fit
        return answer(problem, fits, fit, table, self.bootstrap)

    def _refuse(self, table: TrialsTable, sources: Sequence[str]) -> None:
        refuse_others(table.sources, sources)
        if self.reuse is not None:
            refuse_reuse(self.reuse, sources)
        if self.predictor not in law_names():
            raise RecipeError(f"`predictor` is {self.predictor!r}; expected one of {', '.join(law_names())}")

    def _weights(self, table: TrialsTable) -> dict[str, float]:
        return weights_of(self.metrics, table.metrics)

    def _table(self, evidence: MixtureEvidence) -> TrialsTable:
        if evidence.trials is None:
            raise ContractError("pilot_trials was given no trials")
        if not evidence.sources:
            raise CuveeError("no source has a surviving row to mix; loosen the rules")
        self._refuse(evidence.trials, sorted({*evidence.sources, *evidence.natural}))
        return evidence.trials

    def _fitted(self, table: TrialsTable, budget: int | None, seed: int) -> dict[str, MetricFit]:
        members = _members(table, basis_of(table.sources, table.sources, self.reuse), self.reuse)
        runs = {name: self._runs(table, name, members) for name in self._weights(table)}
        return {name: fitted(found, self.predictor, members, budget, seed) for name, found in runs.items()}

    def _runs(self, table: TrialsTable, metric: str, members: Doubles | None) -> tuple[Runs, ...]:
        found = runs_of(table, metric, members)
        if self.project_to is not None:
            refuse_few_budgets(found)
        return found

    def _problem(
        self, table: TrialsTable, names: tuple[str, ...], fits: Mapping[str, MetricFit], evidence: MixtureEvidence
    ) -> Problem:
        rows = [len(evidence.sources[name].uids) for name in names]
        natural = np.array([evidence.natural.get(name, 0.0) for name in names])
        prior = self.prior_shares(names, evidence.natural)
        even = np.full(len(names), 1 / len(names))
        return Problem(
            sources=table.sources,
            names=names,
            bounds=self.bounds(names, rows, evidence.samples, evidence.natural),
            prior=prior,
            strength=self.prior_strength,
            basis=basis_of(table.sources, names, self.reuse),
            scales=scales_of(self._weights(table), {name: fit.runs.values for name, fit in fits.items()}),
            references={"natural": natural / natural.sum(), "uniform": even, "prior": prior},
            ceiling_at=self.no_worse_than,
        )

    def _learned(self, problem: Problem, fits: Mapping[str, MetricFit], seed: int) -> Fit:
        laws = {name: fit.law for name, fit in fits.items()}
        try:
            ideal = propose(problem.program(laws, bounded=False), seed)
            inside = problem.bounds.hold(problem.narrow(ideal.shares))
            capped = ideal if inside else propose(problem.program(laws, bounded=True), seed)
            ends, answers = intervals(problem, fits, self.bootstrap, seed)
        except CuveeError as error:
            if self.no_worse_than is None:
                raise
            raise CuveeError(f"no_worse_than: {self.no_worse_than}: {error}") from error
        return learned(problem, {"ideal": ideal, "capped": capped}, ends, answers)


def _members(table: TrialsTable, basis: Doubles, reuse: Mapping[str, float] | None) -> Doubles | None:
    """(S, k) 1 where a source belongs to a group, if the ratios to keep were kept by every run."""
    return (basis > 0).astype(float) if reuse is not None and keeps_ratios(table, basis) else None

"""Which runs of a table a metric is fitted on, and whether they are enough."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from schemas.errors import RecipeError
from stages.mixture.trials_table import TrialsTable, mixture_ids
from stages.mixture.trials_table.table import Doubles, Integers

BUDGETS = 3
"""Budgets that a projection to another one needs at least."""
KEPT = 1e-6
"""How far shares may be from kept ratios and still count as such."""


@dataclass(frozen=True, eq=False)
class Runs:
    """The runs that have a number for a metric, in the table's order."""

    metric: str
    rows: Integers
    """(n,) where they stand in the table."""
    shares: Doubles
    """(n, K) what the law is a function of: shares of the sources, or of groups that keep their ratios."""
    values: Doubles
    """(n,)"""
    groups: Integers
    """(n,) equal numbers for equal mixtures."""
    budgets: Integers
    """(n,)"""

    @property
    def budget(self) -> int:
        """The largest."""
        return int(self.budgets.max())

    @property
    def mixtures(self) -> int:
        """How many different ones."""
        return len(np.unique(self.groups))

    @property
    def spread(self) -> float:
        """Standard deviation of the values; 1 where all are the same."""
        return float(self.values.std()) or 1.0


def needed(shares: int) -> int:
    """How many different mixtures it takes: a linear law has as many coefficients as shares, and one more tests it."""
    return shares + 1


def runs_of(table: TrialsTable, metric: str, members: Doubles | None = None) -> tuple[Runs, ...]:
    """The runs of every budget that has enough mixtures, smallest budget first.

    Args:
        table: all runs.
        metric: one of the table's.
        members: (S, K) 1 where a source belongs to a group whose ratios the runs keep.

    Raises:
        RecipeError: too few mixtures at any budget; says how many are needed.
    """
    values = table.values[:, table.metrics.index(metric)]
    shares = table.shares if members is None else table.shares @ members
    found = np.flatnonzero(~np.isnan(values))
    ids = mixture_ids(shares)
    parts = [found[table.budgets[found] == budget] for budget in np.unique(table.budgets[found])]
    runs = [Runs(metric, rows, shares[rows], values[rows], ids[rows], table.budgets[rows]) for rows in parts]
    least = needed(shares.shape[1])
    if not any(part.mixtures >= least for part in runs):
        raise RecipeError(_too_few(metric, runs, shares.shape[1]))
    return tuple(part for part in runs if part.mixtures >= least)


def refuse_few_budgets(runs: Sequence[Runs]) -> None:
    """A projection goes through three budgets or more.

    Raises:
        RecipeError: fewer of them have enough mixtures.
    """
    budgets = [part.budget for part in runs]
    if len(budgets) < BUDGETS or 0 in budgets:
        raise RecipeError(
            f"`project_to` needs runs with `{runs[0].metric}` at {BUDGETS} known budgets or more with enough mixtures, "
            f"found {budgets}; run trials at more budgets, or leave it out"
        )


def _too_few(metric: str, runs: Sequence[Runs], shares: int) -> str:
    parts = [f"{part.mixtures} at budget {part.budget}" for part in runs]
    count = sum(len(part.values) for part in runs)
    what = "one run" if count == 1 else f"{count} runs with {' and '.join(parts)} different mixtures"
    return (
        f"`{metric}` has {what}; a law of {shares} shares needs {needed(shares)} different mixtures at one budget: run "
        "more trials, e.g. with `cuvee trials`"
    )


def keeps_ratios(table: TrialsTable, basis: Doubles) -> bool:
    """Whether every run has the sources of each group of `basis` (S, K) in its ratios."""
    members = (basis > 0).astype(float)
    return bool(np.abs(table.shares - table.shares @ members @ basis.T).max() <= KEPT)

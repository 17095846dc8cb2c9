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


def runs_of(table: TrialsTable, metric: str, every_budget: bool, members: Doubles | None = None) -> Runs:
    """The runs of the largest budget that has enough mixtures, or of `every_budget`.

    Args:
        table: all runs.
        metric: one of the table's.
        every_budget: for a projection.
        members: (S, K) 1 where a source belongs to a group whose ratios the runs keep.

    Raises:
        RecipeError: too few mixtures at any budget, or too few budgets; says how many are needed.
    """
    values = table.values[:, table.metrics.index(metric)]
    shares = table.shares if members is None else table.shares @ members
    found = np.flatnonzero(~np.isnan(values))
    ids = mixture_ids(shares)
    least = needed(shares.shape[1])
    budgets = np.unique(table.budgets[found])
    counts = [len(np.unique(ids[found[table.budgets[found] == budget]])) for budget in budgets]
    enough = [budget for budget, count in zip(budgets, counts, strict=True) if count >= least]
    if not enough:
        raise RecipeError(_too_few(metric, budgets, counts, shares.shape[1], len(found)))
    if every_budget and len(budgets) < BUDGETS:
        raise RecipeError(
            f"`project_to` needs runs with `{metric}` at {BUDGETS} budgets or more, found {budgets.tolist()}; run "
            "trials at more budgets, or leave it out"
        )
    rows = found if every_budget else found[table.budgets[found] == enough[-1]]
    return Runs(metric, rows, shares[rows], values[rows], ids[rows], table.budgets[rows])


def _too_few(metric: str, budgets: Integers, counts: Sequence[int], shares: int, runs: int) -> str:
    parts = [f"{count} at budget {budget}" for budget, count in zip(budgets, counts, strict=True)]
    what = "one run" if runs == 1 else f"{runs} runs with {' and '.join(parts)} different mixtures"
    return (
        f"`{metric}` has {what}; a law of {shares} shares needs {needed(shares)} different mixtures at one budget: run "
        "more trials, e.g. with `cuvee trials`"
    )


def keeps_ratios(table: TrialsTable, basis: Doubles) -> bool:
    """Whether every run has the sources of each group of `basis` (S, K) in its ratios."""
    members = (basis > 0).astype(float)
    return bool(np.abs(table.shares - table.shares @ members @ basis.T).max() <= KEPT)

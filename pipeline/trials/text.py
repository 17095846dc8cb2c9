"""What `cuvee trials` prints: how much mixtures differ, beside how much seeds do."""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.table import Table

from stages.mixture.trials_table import TrialsTable, mixture_ids, read_trials

SHOWN = ("nll",)
"""Metrics of the table; all of them stand in the file."""


def trials_text(facts: Mapping[str, Any]) -> str:
    """The trials as a table for a terminal."""
    text = io.StringIO()
    console = Console(file=text, width=120, highlight=False)
    found = read_trials(Path(facts["table"]))
    counts = f"{facts['mixtures']} mixtures x {len(facts['budgets'])} budgets x {facts['seeds']} seeds"
    console.print(f"{facts['recipe']}: {counts} = {facts['trials']} trials, {facts['computed']} of them run now")
    console.print(_summary(found))
    for note in facts["notes"]:
        console.print(f"note: {note}", soft_wrap=True)
    console.print(f"table   {facts['table']}", soft_wrap=True)
    console.print(f"recipe  {facts['mix']}", soft_wrap=True)
    return text.getvalue().rstrip()


def _summary(found: TrialsTable) -> Table:
    columns = ("metric", "samples", "lowest", "highest", "sd of mixtures", "sd of seeds", "lowest at")
    table = Table(*columns, box=None)
    for place, metric in enumerate(found.metrics):
        if metric.split(".")[0] not in SHOWN:
            continue
        for budget in np.unique(found.budgets):
            table.add_row(metric, str(budget), *_row(found, place, found.budgets == budget))
    return table


def _row(found: TrialsTable, place: int, at: npt.NDArray[np.bool_]) -> list[str]:
    ids, values, shares = mixture_ids(found.shares[at]), found.values[at, place], found.shares[at]
    groups = [values[ids == number] for number in range(ids.max() + 1)]
    means = np.array([group.mean() for group in groups])
    best = shares[np.flatnonzero(ids == means.argmin())[0]]
    named = ", ".join(
        f"{source} {share:.2f}" for source, share in zip(found.sources, best, strict=True) if share >= 0.005
    )
    seeds = np.sqrt(np.mean([group.var(ddof=1) for group in groups])) if len(groups[0]) > 1 else np.nan
    spread = means.std(ddof=1) if len(means) > 1 else np.nan
    return [
        *("-" if np.isnan(number) else f"{number:.4f}" for number in (means.min(), means.max(), spread, seeds)),
        named,
    ]

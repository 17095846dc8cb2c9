"""One run, one row: twins are joined, contradictions are refused."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from schemas.errors import RecipeError
from stages.mixture.trials_table.table import Doubles, TrialsTable, mixture_ids


def each_once(table: TrialsTable, places: Sequence[str], path: Path) -> TrialsTable:
    """The table with one row per (mixture, budget, seed); rows of one run that agree are joined, with a note.

    Raises:
        RecipeError: two rows of one run have different numbers for a metric.
    """
    keys = zip(mixture_ids(table.shares).tolist(), table.budgets.tolist(), table.seeds.tolist(), strict=True)
    first: dict[tuple[int, int, int], int] = {}
    values, twins = table.values.copy(), []
    for row, key in enumerate(keys):
        kept = first.setdefault(key, row)
        if kept == row:
            continue
        _refuse_contradiction(table, values, (kept, row), places, path)
        values[kept] = np.where(np.isnan(values[kept]), values[row], values[kept])
        twins.append(row)
    rows = np.array(sorted(first.values()), np.int64)
    note = f"{path.name}: {len(twins)} rows repeat a run and count once, e.g. {places[twins[0]]}" if twins else ""
    return TrialsTable(
        table.sources,
        table.metrics,
        tuple(table.trials[row] for row in rows),
        table.budgets[rows],
        table.seeds[rows],
        table.shares[rows],
        values[rows],
        (*table.notes, note) if note else table.notes,
    )


def _refuse_contradiction(
    table: TrialsTable, values: Doubles, rows: tuple[int, int], places: Sequence[str], path: Path
) -> None:
    one, other = values[rows[0]], table.values[rows[1]]
    differs = ~(np.isnan(one) | np.isnan(other)) & (one != other)
    if not differs.any():
        return
    metric = int(np.flatnonzero(differs)[0])
    raise RecipeError(
        f"{path}: {places[rows[0]]} and {places[rows[1]]} are one mixture, budget {table.budgets[rows[0]]} and seed "
        f"{table.seeds[rows[0]]} with {table.metrics[metric]} {one[metric]:.9g} and {other[metric]:.9g}; drop one, or "
        "give repeated runs a `seed` (or `budget`) of their own"
    )

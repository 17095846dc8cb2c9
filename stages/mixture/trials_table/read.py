"""From cells to runs: what is only untidy is mended and noted, what may mean something else is refused."""

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from schemas.errors import RecipeError
from schemas.tables import TRIAL_SHARE, TRIALS
from stages.mixture.trials_table.cells import Cells, read_cells
from stages.mixture.trials_table.repeated import each_once
from stages.mixture.trials_table.table import Doubles, Integers, TrialsTable, canonical

METRIC = re.compile(r"[A-Za-z]\w*\..+")
EXACT = 1e-9
"""Sums this close to 1 are 1."""
ROUNDING = 0.0005
"""What three decimals may lose of each share: with as many sources, a sum this far off is rounding and no mistake."""
SHOWN = 3
LARGEST = 2**53


@dataclass
class _File:
    """The cells, and where messages say they stand."""

    path: Path
    cells: Cells

    def column(self, name: str) -> list[Any]:
        place = self.cells.header.index(name)
        return [row[place] for row in self.cells.rows]

    def refuse(self, row: int, message: str) -> RecipeError:
        return RecipeError(f"{self.path}, {self.cells.places[row]}: {message}")


def read_trials(path: Path | str) -> TrialsTable:
    """Read a .csv or .parquet of pilot runs and check every number in it.

    A column `share.SOURCE` per source and a column `METRIC.HELDOUT` per metric are needed; `trial`, `budget` and `seed`
    may be left out. Sums that rounding to three decimals explains are normalised; empty cells and NaN among the
    metrics are runs without that number; a run that stands twice counts once. All that is noted.

    Raises:
        RecipeError: no such file, not readable, no runs, no share or metric columns, a cell that is no number, a share
            below 0 or missing, a sum off 1 (with the line and the sum), an infinite metric, a metric that no run has,
            or one mixture, budget and seed with two different results.
    """
    file = _File(Path(path), read_cells(Path(path)))
    header = file.cells.header
    shares = sorted(name for name in header if name.startswith(TRIAL_SHARE))
    metrics = sorted(name for name in header if name not in shares and METRIC.fullmatch(name))
    _refuse_columns(file, shares, metrics)
    points, rounded = _simplex(file, _numbers(file, shares, _share), shares)
    values = _numbers(file, metrics, _metric)
    table = TrialsTable(
        sources=tuple(name.removeprefix(TRIAL_SHARE) for name in shares),
        metrics=tuple(metrics),
        trials=_names(file),
        budgets=_integers(file, "budget"),
        seeds=_integers(file, "seed"),
        shares=points,
        values=values,
        notes=(*_ignored(file, shares, metrics), *rounded, *_missing(file, values, metrics)),
    )
    return canonical(each_once(table, file.cells.places, file.path))


def _refuse_columns(file: _File, shares: Sequence[str], metrics: Sequence[str]) -> None:
    found = ", ".join(file.cells.header) or "none"
    if not shares:
        raise RecipeError(
            f"{file.path} has no column `{TRIAL_SHARE}SOURCE`, only {found:.300}; give every source of the pool one, "
            "with the share that the run drew of it"
        )
    if TRIAL_SHARE in shares:
        raise RecipeError(f"{file.path} has a column {TRIAL_SHARE!r} that names no source; call it `share.SOURCE`")
    if not metrics:
        raise RecipeError(
            f"{file.path} has no column `METRIC.HELDOUT`, only {found:.300}; call what was measured e.g. `nll.target` "
            "or `nll.photos`, lower being better"
        )


def _numbers(file: _File, names: Sequence[str], accept: Callable[[float | None], str]) -> Doubles:
    """(n, len(names)): the cells of these columns; `accept` says what is wrong with a number, or nothing."""
    found = np.empty((len(file.cells.rows), len(names)))
    for place, name in enumerate(names):
        for row, cell in enumerate(file.column(name)):
            number = _number(file, row, name, cell)
            if wrong := accept(number):
                raise file.refuse(row, f"`{name}` is {cell!r}; {wrong}")
            found[row, place] = math.nan if number is None else number
    return found


def _number(file: _File, row: int, name: str, cell: Any) -> float | None:
    if cell is None or cell == "":
        return None
    try:
        number = math.nan if isinstance(cell, bool) else float(cell)
    except (TypeError, ValueError):
        number = None
    if number is None or isinstance(cell, bool):
        raise file.refuse(row, f"`{name}` is {cell!r:.60}; expected a number with a decimal point")
    return number


def _share(number: float | None) -> str:
    if number is None or math.isnan(number):
        return "every run needs a share of every source: write 0 where it drew nothing"
    if number < 0:
        return "a share is not negative"
    return "" if math.isfinite(number) else "a share is at most 1"


def _metric(number: float | None) -> str:
    infinite = number is not None and math.isinf(number)
    return "leave the cell empty where a run has no number" if infinite else ""


def _simplex(file: _File, shares: Doubles, names: Sequence[str]) -> tuple[Doubles, list[str]]:
    sums, allowed = shares.sum(axis=1), max(EXACT, ROUNDING * len(names))
    if (off := np.flatnonzero(np.abs(sums - 1) > allowed)).size:
        row = int(off[0])
        hint = "divide percentages by 100" if np.allclose(sums, 100, rtol=0.02) else "correct the row"
        more = f" ({off.size} rows are off)" if off.size > 1 else ""
        raise file.refuse(
            row, f"the {len(names)} shares sum to {sums[row]:.6g}, expected 1 within {allowed:g}{more}; {hint}"
        )
    inexact = np.flatnonzero(np.abs(sums - 1) > EXACT)
    note = f"{file.path.name}: shares of {inexact.size} runs were rounded (sums {{}} to {{}}) and normalised to 1"
    ends = [f"{end:.6g}" for end in (sums.min(), sums.max())]
    return shares / sums[:, None], [note.format(*ends)] if inexact.size else []


def _integers(file: _File, name: str) -> Integers:
    if name not in file.cells.header:
        return np.zeros(len(file.cells.rows), np.int64)
    found = []
    for row, cell in enumerate(file.column(name)):
        number = _number(file, row, name, cell)
        if number is None or not number.is_integer() or not 0 <= number <= LARGEST:
            raise file.refuse(row, f"`{name}` is {cell!r}; expected a whole number, 0 or more")
        found.append(int(number))
    return np.array(found, np.int64)


def _names(file: _File) -> tuple[str, ...]:
    if "trial" not in file.cells.header:
        return tuple(place.replace(" ", "-") for place in file.cells.places)
    cells = zip(file.column("trial"), file.cells.places, strict=True)
    return tuple(place.replace(" ", "-") if cell in (None, "") else str(cell) for cell, place in cells)


def _ignored(file: _File, shares: Sequence[str], metrics: Sequence[str]) -> list[str]:
    known = {*shares, *metrics, *TRIALS.names}
    if not (others := [name for name in file.cells.header if name not in known]):
        return []
    return [f"{file.path.name}: not read, being neither share.SOURCE nor METRIC.HELDOUT: {', '.join(others):.200}"]


def _missing(file: _File, values: Doubles, metrics: Sequence[str]) -> list[str]:
    notes = []
    for name, column in zip(metrics, np.isnan(values).T, strict=True):
        rows = np.flatnonzero(column)
        if rows.size == len(column):
            raise RecipeError(f"{file.path}: no run has a number for `{name}`; fill the column or drop it")
        more = f" and {rows.size - SHOWN} more" if rows.size > SHOWN else ""
        named = ", ".join(file.cells.places[row] for row in rows[:SHOWN])
        if rows.size:
            notes.append(f"{file.path.name}: no `{name}` in {named}{more}; it is fitted on the other runs")
    return notes

"""A CSV or Parquet file as a header and rows of cells, each row with the place where a user finds it."""

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from schemas.errors import RecipeError

FORMATS = (".csv", ".parquet")
OTHER_SEPARATORS = (";", "\t")


@dataclass(frozen=True)
class Cells:
    """A table as it stands in the file."""

    header: tuple[str, ...]
    rows: list[list[Any]]
    """Text from a CSV, any value from Parquet; None or an empty text: no value."""
    places: list[str]
    """`line 7` of a CSV, `row 6` of a Parquet file, the first being 1."""


def read_cells(path: Path) -> Cells:
    """Read the file.

    Raises:
        RecipeError: it is missing, of another format, unreadable, ragged or empty.
    """
    if not path.is_file():
        raise RecipeError(f"there is no file {str(path)!r}; name a .csv or .parquet of pilot runs")
    if path.suffix.lower() not in FORMATS:
        raise RecipeError(f"{path} is neither .csv nor .parquet; save the runs as one of these")
    try:
        cells = _csv(path) if path.suffix.lower() == ".csv" else _parquet(path)
    except (OSError, UnicodeDecodeError, csv.Error, pa.ArrowException) as error:
        raise RecipeError(f"{path} cannot be read: {error}; expected a table of pilot runs") from error
    if not cells.rows:
        raise RecipeError(f"{path} holds no runs; expected a header and a row per pilot run")
    if twice := sorted({name for name in cells.header if cells.header.count(name) > 1}):
        raise RecipeError(f"{path} has two columns called {twice[0]!r}; rename or drop one")
    return cells


def _csv(path: Path) -> Cells:
    with open(path, newline="", encoding="utf-8-sig") as file:
        reader = csv.reader(file, strict=True)
        header = tuple(name.strip() for name in next(reader, []))
        rows, places = [], []
        for row in reader:
            if not any(cell.strip() for cell in row):
                continue
            if len(row) != len(header):
                raise csv.Error(f"line {reader.line_num} has {len(row)} cells, the header {len(header)}")
            rows.append([cell.strip() for cell in row])
            places.append(f"line {reader.line_num}")
    if len(header) == 1 and (found := [mark for mark in OTHER_SEPARATORS if mark in header[0]]):
        raise csv.Error(f"its cells are separated by {found[0]!r}, a CSV's by commas")
    return Cells(header, rows, places)


def _parquet(path: Path) -> Cells:
    table = pq.read_table(path)
    columns = [column.to_pylist() for column in table.columns]
    rows = [list(row) for row in zip(*columns, strict=True)]
    return Cells(tuple(table.column_names), rows, [f"row {number}" for number in range(1, len(rows) + 1)])

"""Orders rows by a number and counts how many a fraction keeps: what every rule that ranks has to agree on."""

from fractions import Fraction
from math import ceil

import polars as pl

from schemas.columns import COLUMNS
from schemas.errors import RecipeError

NUMERIC_TYPES = ("int", "uint", "float", "double", "halffloat")


def numeric_name(column: str) -> str:
    """The column's name, for use as a pydantic validator.

    Raises:
        ValueError: the column is declared and holds no numbers.
    """
    field = COLUMNS.get(column)
    if field is not None and not str(field.type).startswith(NUMERIC_TYPES):
        raise ValueError(f"column {column!r} holds {field.type}, not numbers; name a numeric column")
    return column


def require_numeric(rows: pl.LazyFrame, column: str) -> None:
    """Refuse a column that cannot be ordered as numbers.

    Raises:
        RecipeError: with the type found.
    """
    dtype = rows.collect_schema()[column]
    if not dtype.is_numeric():
        raise RecipeError(f"column {column!r} holds {dtype}, not numbers; name a numeric column")


def preferred_first(rows: pl.DataFrame, prefer: str | None) -> pl.DataFrame:
    """Rows by `prefer`, highest first and nulls last, then by uid: of two duplicates the earlier one survives."""
    if prefer is None:
        return rows.sort("uid")
    return rows.sort([prefer, "uid"], descending=[True, False], nulls_last=True)


def share_of(fraction: float, n: int) -> int:
    """ceil(fraction x n), with the fraction taken as the decimal it is written as: 0.3 of 10 is 3, never 4."""
    return ceil(Fraction(repr(fraction)) * n)

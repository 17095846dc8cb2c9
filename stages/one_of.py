"""Decides by a name: a language, a kind, a format, true or false.

A row without the value is dropped as `<column>_missing`. Works row by row, so any partition of a larger table gives the
same verdicts. The evidence counts the names that the recipe lists and no others, for a column may hold anything.
"""

from typing import Annotated, Literal

import polars as pl
from pydantic import AfterValidator, Field, StrictBool, StrictStr

from schemas.columns import COLUMNS
from schemas.errors import ContractError, RecipeError
from stages.rule import Context, Rule, Verdict, drop_lines, gathered, missing_rows

NAME_TYPES = ("string", "large_string", "bool")


def name_column(column: str) -> str:
    """The column's name, for use as a pydantic validator.

    Raises:
        ValueError: the column is declared and holds no names.
    """
    field = COLUMNS.get(column)
    if field is not None and str(field.type) not in NAME_TYPES:
        raise ValueError(f"column {column!r} holds {field.type}, not names; numbers are cut by at_least and at_most")
    return column


NameColumn = Annotated[str, AfterValidator(name_column)]
Names = Annotated[tuple[StrictBool | StrictStr, ...], Field(min_length=1)]


class _Listed(Rule):
    """Compares with `values`; which rows are lost is the subclass's to say."""

    column: NameColumn
    values: Names

    def columns(self) -> tuple[str, ...]:
        """The column that is compared."""
        return (self.column,)

    def judge(self, rows: pl.LazyFrame, context: Context) -> Verdict:
        """Compare each row with `values`.

        Raises:
            RecipeError: the column holds neither text nor true and false, or a value is of the other kind.
        """
        _refuse_others(rows, self.column, self.values)
        table = gathered(rows, context, "source", self.column)
        lost, side = self._lost(pl.col(self.column).is_in(list(self.values)))
        return _verdict(table, drop_lines(table.filter(lost), f"{side}_{self.column}"), self.column, self.values)

    def _lost(self, listed: pl.Expr) -> tuple[pl.Expr, str]:
        """Which rows go, and the beginning of their reason."""
        raise ContractError(f"{type(self).__name__} does not implement _lost()")


class OneOf(_Listed):
    """Keeps rows whose `column` is one of `values`, letter for letter; drops the others as `other_<column>`."""

    kind: Literal["one_of"] = "one_of"

    def _lost(self, listed: pl.Expr) -> tuple[pl.Expr, str]:
        return ~listed, "other"


class NoneOf(_Listed):
    """Drops rows whose `column` is one of `values`, letter for letter, as `excluded_<column>`."""

    kind: Literal["none_of"] = "none_of"

    def _lost(self, listed: pl.Expr) -> tuple[pl.Expr, str]:
        return listed, "excluded"


def _refuse_others(rows: pl.LazyFrame, column: str, values: tuple[bool | str, ...]) -> None:
    """Refuse a column that is neither text nor booleans, and values of the other kind."""
    dtype = rows.collect_schema()[column]
    if dtype not in (pl.String, pl.Boolean):
        raise RecipeError(f"column {column!r} holds {dtype}, not names; numbers are cut by at_least and at_most")
    kind = bool if dtype == pl.Boolean else str
    if wrong := [value for value in values if not isinstance(value, kind)]:
        wanted = "true and false" if kind is bool else "text: in YAML, no, yes, on and off need quotes"
        raise RecipeError(f"column {column!r} is compared with {wrong[0]!r}; it holds {wanted}")


def _verdict(table: pl.DataFrame, lost: pl.DataFrame, column: str, values: tuple[bool | str, ...]) -> Verdict:
    dropped = pl.concat([missing_rows(table, column), lost]).sort("uid")
    named = table.filter(pl.col(column).is_in(list(values))).group_by("source", column).len().sort("source", column)
    sources: dict[str, dict[str, int]] = {}
    for source, value, count in named.iter_rows():
        sources.setdefault(source, {})[str(value)] = count
    return Verdict(dropped, evidence={"column": column, "n": int(table[column].count()), "sources": sources})

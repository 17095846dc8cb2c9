"""Attributes of rows, read off columns, and the patterns in which they occur."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl
from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictStr, model_validator

from schemas.columns import COLUMNS
from schemas.errors import RecipeError
from stages.order import NUMERIC_TYPES

Bits = npt.NDArray[np.bool_]
Integers = npt.NDArray[np.int64]

MOST_ATTRIBUTES = 62
"""Bits of a pattern's number."""


class Attribute(BaseModel):
    """True of a row: `column` is `value`, letter for letter, or `column` >= `at_least`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    column: str
    value: StrictBool | StrictStr | None = None
    at_least: float | None = Field(None, allow_inf_nan=False)

    @model_validator(mode="after")
    def _one_test(self) -> "Attribute":
        if (self.value is None) == (self.at_least is None):
            raise ValueError(f"{self.column!r}: found value={self.value!r}, at_least={self.at_least}; name one of them")
        declared = COLUMNS.get(self.column)
        if declared is not None and str(declared.type).startswith(NUMERIC_TYPES) == (self.at_least is None):
            other = "at_least" if self.at_least is None else "value"
            raise ValueError(f"column {self.column!r} holds {declared.type}; compare it by `{other}`")
        return self

    @property
    def name(self) -> str:
        """As the evidence has it."""
        return f"{self.column}={self.value}" if self.at_least is None else f"{self.column}>={self.at_least:g}"

    def holds(self, rows: pl.LazyFrame) -> pl.Expr:
        """Whether it is true, for rows with a value.

        Raises:
            RecipeError: the column cannot be compared in this way.
        """
        dtype = rows.collect_schema()[self.column]
        if self.at_least is not None:
            fits, wanted = dtype.is_numeric(), "`value`"
        else:
            fits = dtype == (pl.Boolean if isinstance(self.value, bool) else pl.String)
            wanted = "`at_least`" if dtype.is_numeric() else "text or true and false: in YAML, no and yes need quotes"
        if not fits:
            raise RecipeError(f"column {self.column!r} of {self.name!r} holds {dtype}; compare it by {wanted}")
        test = pl.col(self.column) == self.value if self.at_least is None else pl.col(self.column) >= self.at_least
        return test.alias(self.name)


class Sensitive(Attribute):
    """An attribute whose share is to be `share`, by default what it is among the rows, and tied to no label."""

    share: float | None = Field(None, gt=0, lt=1)


@dataclass(frozen=True)
class Patterns:
    """The combinations of attributes that occur, in the order of their numbers."""

    sensitive: Bits
    """(g, k)"""
    labels: Bits
    """(g, r)"""
    rows: Integers
    """(g,) rows of each."""


def patterns(attributes: Bits, sensitive: int) -> tuple[Patterns, Integers]:
    """What occurs among (n, k + r) attributes, the first k sensitive, and the number (n,) of each row's pattern."""
    number = attributes.astype(np.int64) @ (1 << np.arange(attributes.shape[1], dtype=np.int64))
    found, of_row, rows = np.unique(number, return_inverse=True, return_counts=True)
    bits = (found[:, None] >> np.arange(attributes.shape[1])) & 1 == 1
    return Patterns(bits[:, :sensitive], bits[:, sensitive:], rows), of_row


def biases(counts: Integers, found: Patterns, shares: npt.NDArray[np.float64]) -> tuple[float, float]:
    """(representation, association) bias of sets with `counts` (g,) rows of each pattern; 1 where a group is empty."""
    total = int(counts.sum())
    of_group = counts @ found.sensitive
    representation = float(np.abs(of_group / max(total, 1) - shares).max())
    if not found.labels.shape[1]:
        return representation, 0.0
    if not (of_group.all() and (total - of_group).all()):
        return representation, 1.0
    with_label = (found.sensitive * counts[:, None]).T.astype(np.int64) @ found.labels.astype(np.int64)
    without = counts @ found.labels - with_label
    gaps = with_label / of_group[:, None] - without / (total - of_group)[:, None]
    return representation, float(np.abs(gaps).max())

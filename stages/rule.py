"""The contract of a rule: the score table in, verdicts or weights out, never an image opened."""

from dataclasses import dataclass, field
from typing import Any, ClassVar

import polars as pl
from pydantic import BaseModel, ConfigDict

from schemas.errors import ContractError
from stages.fit import Fit

DROPPED_SCHEMA = {"uid": pl.String, "reason": pl.String, "duplicate_of": pl.String}
WEIGHTS_SCHEMA = {"uid": pl.String, "weight": pl.Float64}


@dataclass(frozen=True)
class Context:
    """What a rule may know beside the rows: the seed, the target's rows where there is one, a pinned fit."""

    seed: int
    target: pl.LazyFrame | None = None
    """The target's columns, uid included; the held-out part is never in it."""
    fit: Fit | None = None
    """What this rule, with these settings, learned in the run that the recipe pins: decide with it, learn nothing."""


@dataclass(frozen=True)
class Verdict:
    """What a rule decided.

    `dropped` has one line per dropped row (uid, reason, duplicate_of or null); rows not named stay.
    `weights` (uid, weight > 0) multiplies into the rows' weights; rows not named keep theirs.
    `evidence` holds plain JSON values: thresholds, counts, distances, for the record and the report.
    `fit` is what was learned from the rows, or the pinned one as it came; a rule that learns nothing leaves it out.
    """

    dropped: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=DROPPED_SCHEMA))
    weights: pl.DataFrame | None = None
    evidence: dict[str, Any] = field(default_factory=dict)
    fit: Fit | None = None


class Rule(BaseModel):
    """One decision method: its settings are its fields, its step is `judge`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: str
    version: ClassVar[int] = 1
    """Raise it whenever verdicts or fits change for the same settings and rows."""
    quotes_captions: ClassVar[bool] = True
    """False: the report shows what this rule dropped without the captions, for they may hold people's data."""

    def columns(self) -> tuple[str, ...]:
        """Names of the columns it reads beside uid and source; `needs_target` rules read them of the target too."""
        raise ContractError(f"{type(self).__name__} does not implement columns()")

    def needs_target(self) -> bool:
        """True when the recipe must name a target."""
        return False

    def judge(self, rows: pl.LazyFrame, context: Context) -> Verdict:
        """Decide over the rows still there, given in uid order with `uid`, `source` and `columns()`.

        Raises:
            CuveeError: more was asked for than there is, with both numbers; or a pinned fit does not cover the rows.
        """
        raise ContractError(f"{type(self).__name__} does not implement judge()")


def missing_rows(rows: pl.DataFrame, column: str) -> pl.DataFrame:
    """Verdict lines that drop the rows without a value: reason `<column>_missing`."""
    return drop_lines(rows.filter(pl.col(column).is_null()), f"{column}_missing")


def drop_lines(rows: pl.DataFrame, reason: str) -> pl.DataFrame:
    """Verdict lines that drop every given row for one reason; a `duplicate_of` column is carried along."""
    partner = pl.col("duplicate_of") if "duplicate_of" in rows.columns else pl.lit(None, pl.String)
    return rows.select("uid", pl.lit(reason).alias("reason"), partner.alias("duplicate_of")).cast(DROPPED_SCHEMA)  # type: ignore[arg-type]

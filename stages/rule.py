"""The contract of a rule: the score table in, verdicts or weights out, never an image opened."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol, TypeVar

import polars as pl
from pydantic import BaseModel, ConfigDict

from schemas.errors import ContractError
from stages.fit import Fit

Piece = TypeVar("Piece")
Result = TypeVar("Result")

DROPPED_SCHEMA = {"uid": pl.String, "reason": pl.String, "duplicate_of": pl.String, "similarity": pl.Float64}
WEIGHTS_SCHEMA = {"uid": pl.String, "weight": pl.Float64}
SCORES_SCHEMA = {"uid": pl.String, "score": pl.Float64}
DRAWN_SCHEMA = {**SCORES_SCHEMA, "importance": pl.Float64}
"""Of a rule that draws: its score is the importance with its noise."""


class Mapper(Protocol):
    """Does independent pieces of work somewhere; the results come in the order of the pieces."""

    def __call__(self, function: Callable[[Piece], Result], pieces: Iterable[Piece], /) -> list[Result]:
        """`function` of each piece. Function, pieces and results travel between processes: keep them small."""
        ...


def in_order(function: Callable[[Piece], Result], pieces: Iterable[Piece], /) -> list[Result]:
    """One piece after the other, in this process."""
    return [function(piece) for piece in pieces]


@dataclass(frozen=True)
class Context:
    """What a rule may know beside the rows: the seed, rows to compare with, a pinned fit; and where work is done."""

    seed: int
    target: pl.LazyFrame | None = None
    """The target's columns, uid included; the held-out part is never in it."""
    fit: Fit | None = None
    """What this rule, with these settings, learned in the run that the recipe pins: decide with it, learn nothing."""
    references: Mapping[str, pl.LazyFrame] = field(default_factory=dict)
    """Per name in `needs_references()` that set's columns, uid included, in uid order."""
    parts: tuple[pl.LazyFrame, ...] = ()
    """The rows again, cut by shard, each part in uid order; empty where one machine takes them as a whole."""
    map: Mapper = in_order
    """Does independent pieces of work here or on the cluster. Which must not show in the results."""

    def each_part(self, rows: pl.LazyFrame, function: Callable[[pl.DataFrame], Result]) -> list[Result]:
        """`function` of every part of the rows, collected where the function runs.

        How rows fall into parts depends on the pool's files: only what the results add up to may count.
        """
        return self.map(lambda part: function(part.collect()), self.parts or (rows,))


@dataclass(frozen=True)
class Verdict:
    """What a rule decided.

    `dropped` has one line per dropped row (uid, reason, duplicate_of or null, similarity to that one or null); rows
    not named stay. Similarity is 1 for equals: a cosine, a Jaccard index, a share of equal bits.
    `weights` (uid, weight > 0) multiplies into the rows' weights; rows not named keep theirs.
    `scores` (uid, score) is what rows were ranked by, kept ones too; it stands in the ledger. Where noise had a part in
    that, `importance` is the score without it.
    `evidence` holds plain JSON values: thresholds, counts, distances, for the record and the report.
    `fit` is what was learned from the rows, or the pinned one as it came; a rule that learns nothing leaves it out.
    """

    dropped: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=DROPPED_SCHEMA))
    weights: pl.DataFrame | None = None
    scores: pl.DataFrame | None = None
    evidence: dict[str, Any] = field(default_factory=dict)
    fit: Fit | None = None


class Rule(BaseModel):
    """One decision method: its settings are its fields, its step is `judge`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: str
    version: ClassVar[int] = 1
    """Raise it whenever verdicts or fits change for the same settings and rows."""
    likeness: ClassVar[str] = ""
    """What the `similarity` of its verdict lines is, in words for `cuvee explain`; empty for a rule that gives none."""
    quotes_captions: ClassVar[bool] = True
    """False: the report shows what this rule dropped without the captions, for they may hold people's data."""

    def columns(self) -> tuple[str, ...]:
        """Names of the columns it reads beside uid and source; `needs_target` rules read them of the target too."""
        raise ContractError(f"{type(self).__name__} does not implement columns()")

    def needs_target(self) -> bool:
        """True when the recipe must name a target."""
        return False

    def needs_references(self) -> tuple[str, ...]:
        """Names of the recipe's `references` whose `columns()` it reads."""
        return ()

    def merges_captions(self) -> bool:
        """True when captions of rows that it drops go to the row named as `duplicate_of`, and into its export."""
        return False

    def judge(self, rows: pl.LazyFrame, context: Context) -> Verdict:
        """Decide over the rows still there, given in uid order with `uid`, `source` and `columns()`.

        Raises:
            CuveeError: more was asked for than there is, with both numbers; or a pinned fit does not cover the rows.
        """
        raise ContractError(f"{type(self).__name__} does not implement judge()")


def gathered(rows: pl.LazyFrame, context: Context, *columns: str) -> pl.DataFrame:
    """(uid, *columns) of all rows in uid order, read part by part."""
    found = context.each_part(rows, lambda part: part.select("uid", *columns))
    return pl.concat(found).sort("uid")


def missing_rows(rows: pl.DataFrame, column: str) -> pl.DataFrame:
    """Verdict lines that drop the rows without a value: reason `<column>_missing`."""
    return drop_lines(rows.filter(pl.col(column).is_null()), f"{column}_missing")


def whole_and_missing(rows: pl.DataFrame, columns: Sequence[str]) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The rows with a value in every column, and verdict lines for the others, by the first column they lack."""
    lines = [drop_lines(rows.head(0), "")]
    for column in columns:
        lines.append(missing_rows(rows, column))
        rows = rows.filter(pl.col(column).is_not_null())
    return rows, pl.concat(lines)


def present_and_missing(
    rows: pl.LazyFrame, context: Context, columns: Sequence[str]
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The same, in uid order and with no values, which do not leave their part: (uid), and verdict lines."""
    there = [pl.when(pl.col(name).is_not_null()).then(True).alias(name) for name in columns]
    found = pl.concat(context.each_part(rows, lambda part: part.select("uid", *there))).sort("uid")
    whole, missing = whole_and_missing(found, columns)
    return whole.select("uid"), missing


def scores_told(verdict: Verdict) -> pl.DataFrame:
    """(uid, score, importance) of the rows that were ranked; no importance where no noise had a part."""
    found = pl.DataFrame(schema=SCORES_SCHEMA) if verdict.scores is None else verdict.scores
    lacking = [pl.lit(None, kind).alias(name) for name, kind in DRAWN_SCHEMA.items() if name not in found.columns]
    return found.with_columns(lacking)


def drop_lines(rows: pl.DataFrame, reason: str) -> pl.DataFrame:
    """Verdict lines that drop every given row for one reason; `duplicate_of` and `similarity` are carried along."""
    carried = [
        pl.col(name) if name in rows.columns else pl.lit(None, DROPPED_SCHEMA[name]).alias(name)
        for name in ("duplicate_of", "similarity")
    ]
    return rows.select("uid", pl.lit(reason).alias("reason"), *carried).cast(DROPPED_SCHEMA)  # type: ignore[arg-type]

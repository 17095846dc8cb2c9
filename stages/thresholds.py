"""Cuts on one score: a value, or the best fraction of what is still there.

A row without the score is dropped as `<column>_missing`. A value is compared in the column's own precision, so a
float32 score that prints as 0.28 passes `at_least 0.28`. The evidence holds every threshold, so that a report can draw
it over the score's histogram. Of a pool in parts each part hands in uids and scores, 40 bytes a row; the cut is the
same.
"""

from dataclasses import replace
from math import ceil, floor
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import polars as pl
from pydantic import AfterValidator, Field

from schemas.errors import ContractError, CuveeError
from stages.fit import Fit
from stages.noise import uniform_noise
from stages.order import numeric_name, require_numeric, share_of
from stages.rule import Context, Rule, Verdict, drop_lines, gathered, missing_rows

NumericColumn = Annotated[str, AfterValidator(numeric_name)]
Number = Annotated[float, Field(allow_inf_nan=False)]


class _Border(Rule):
    """A cut at `value`; which side is lost is the subclass's to say."""

    column: NumericColumn
    value: Number

    def columns(self) -> tuple[str, ...]:
        """The column that is cut."""
        return (self.column,)

    def judge(self, rows: pl.LazyFrame, context: Context) -> Verdict:
        """Compare each row with `value`.

        Raises:
            RecipeError: the column holds no numbers.
        """
        require_numeric(rows, self.column)
        table = gathered(rows, context, "source", self.column)
        lost, side = self._lost(table[self.column].dtype.is_integer())
        return _verdict(table, table.filter(lost), self.column, f"{side}_{self.column}", {"": self.value})

    def _lost(self, integers: bool) -> tuple[pl.Expr, str]:
        """Which rows go, and the side of the border that they are on."""
        raise ContractError(f"{type(self).__name__} does not implement _lost()")


class AtLeast(_Border):
    """Keeps rows with `column` >= `value`; drops the others as `below_<column>`."""

    kind: Literal["at_least"] = "at_least"

    def _lost(self, integers: bool) -> tuple[pl.Expr, str]:
        return pl.col(self.column) < (ceil(self.value) if integers else self.value), "below"


class AtMost(_Border):
    """Keeps rows with `column` <= `value`; drops the others as `above_<column>`."""

    kind: Literal["at_most"] = "at_most"

    def _lost(self, integers: bool) -> tuple[pl.Expr, str]:
        return pl.col(self.column) > (floor(self.value) if integers else self.value), "above"


class TopFraction(Rule):
    """Keeps the best `fraction` of the n rows that are still there and have the score.

    k = ceil(fraction x n), and every row >= the k-th largest value stays, so ties at the border may exceed k; `exact`
    keeps k rows and lets hash(seed, uid) choose among the tied. `compat: datacomp` is that benchmark's own count,
    int(n x fraction) + 1 in floating point with rows without a score in n (mlfoundations/datacomp, baselines). Drops as
    `below_<column>`.
    Learned: the border. Under a pinned one every row >= it stays, tied or not, whatever fraction that is.
    """

    version: ClassVar[int] = 3

    kind: Literal["top_fraction"] = "top_fraction"
    column: NumericColumn
    fraction: float = Field(gt=0, le=1)
    per_source: bool = False
    exact: bool = False
    compat: Literal["datacomp"] | None = None

    def columns(self) -> tuple[str, ...]:
        """The column that is ranked."""
        return (self.column,)

    def judge(self, rows: pl.LazyFrame, context: Context) -> Verdict:
        """Find the k-th largest value, of each source if asked, and cut there.

        Raises:
            RecipeError: the column holds no numbers.
            CuveeError: a source has scores and no pinned border.
        """
        require_numeric(rows, self.column)
        table = gathered(rows, context, "source", self.column)
        scored = table.drop_nulls(self.column).sort("uid")
        groups = scored.partition_by("source", as_dict=True) if self.per_source else {("",): scored}
        counted = dict(table.group_by("source").len().iter_rows()) if self.per_source else {}
        thresholds: dict[str, Any] = {}
        lost = [scored.head(0)]
        for name, group in sorted(groups.items(), key=lambda item: str(item[0][0])):
            if len(group) and context.fit is not None:
                border = thresholds[str(name[0])] = self._pinned(context.fit, str(name[0]))
                lost.append(group.filter(pl.col(self.column) < border))
            elif len(group):
                thresholds[str(name[0])], below = self._cut(group, counted.get(name[0], len(table)), context.seed)
                lost.append(below)
        verdict = _verdict(table, pl.concat(lost), self.column, f"below_{self.column}", thresholds)
        return replace(verdict, fit=context.fit or Fit(facts={"borders": thresholds}))

    def _pinned(self, fit: Fit, source: str) -> Any:
        borders = fit.facts["borders"]
        if source not in borders:
            where = f"source {source!r} has" if source else "the pool has"
            raise CuveeError(
                f"{where} no pinned border for {self.column!r}, only {sorted(borders) or 'nothing'} had scores then; "
                f"run once without `fits:` to fit anew, then pin that run"
            )
        return borders[source]

    def _cut(self, group: pl.DataFrame, counted: int, seed: int) -> tuple[Any, pl.DataFrame]:
        """The k-th largest value and the rows that fall below it; group (n > 0 rows) in uid order, without nulls.

        `counted` holds those with nulls, too: DataComp takes its fraction of all.
        """
        n = len(group)
        k = min(int(counted * self.fraction) + 1, n) if self.compat == "datacomp" else share_of(self.fraction, n)
        values = group[self.column].to_numpy()
        border = np.partition(values, n - k)[n - k]
        keep = values >= border
        if self.exact:
            tied = np.flatnonzero(values == border)
            noise = uniform_noise(group["uid"].gather(tied).to_list(), seed, f"top_fraction {self.column}")
            places = k - int(np.count_nonzero(values > border))
            keep[tied[np.argsort(noise, kind="stable")[places:]]] = False
        return border.item(), group.filter(pl.Series(~keep))


def _verdict(table: pl.DataFrame, lost: pl.DataFrame, column: str, reason: str, thresholds: dict[str, Any]) -> Verdict:
    missing = missing_rows(table, column)
    dropped = pl.concat([missing, drop_lines(lost, reason)]).sort("uid")
    kept = table.join(dropped, on="uid", how="anti").group_by("source").len("kept")
    counts = table.group_by("source").agg(
        pl.col(column).count().alias("scored"), pl.col(column).null_count().alias("missing")
    )
    by_source = counts.join(kept, on="source", how="left").fill_null(0).sort("source")
    evidence = {
        "column": column,
        "thresholds": thresholds,
        "n": int(table[column].count()),
        "sources": {row.pop("source"): row for row in by_source.to_dicts()},
    }
    return Verdict(dropped, evidence=evidence)

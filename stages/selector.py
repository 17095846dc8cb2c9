"""The contract of a selector: a rule that keeps a budget's worth of the rows that it ranks highest.

A selector ranks; what a budget means, who wins a tie and what becomes of rows without a value is the same for all, see
`budget.py`. So any of them can stand in for another at the same budget, and `cuvee compare` holds them side by side.
"""

from dataclasses import dataclass, field
from typing import Any, final

import polars as pl

from schemas.columns import CAPTION
from schemas.errors import ContractError
from stages.budget import TOKENS, Budget, Mask
from stages.fit import Fit
from stages.rule import DRAWN_SCHEMA, DROPPED_SCHEMA, SCORES_SCHEMA, Context, Rule, Verdict, drop_lines


@dataclass(frozen=True)
class Ranking:
    """What a selector thinks of the rows."""

    rows: pl.DataFrame
    """(uid, score) of every eligible row, the best with the highest score; finite, in any order. One who draws gives
    `importance`, the score without its noise. Further columns are for `describe`."""
    dropped: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=DROPPED_SCHEMA))
    """Verdict lines of the rows that are not eligible."""
    evidence: dict[str, Any] = field(default_factory=dict)
    """Plain JSON values, for the record and the report."""
    fit: Fit | None = None
    """What was learned, or the pinned fit as it came."""
    weights: pl.DataFrame | None = None
    """(uid, weight > 0) for kept rows that are to be drawn more or less often than others."""


def ranking_of_one(row: pl.DataFrame, dropped: pl.DataFrame, context: Context) -> Ranking:
    """Of a single eligible row (uid): there is nothing to choose, and what it says of others is not worth learning."""
    return Ranking(row.select("uid", pl.lit(0.0).alias("score")), dropped, fit=context.fit)


class Selector(Budget, Rule):
    """One way to rank rows: its settings are its fields, its step is `rank`. Others drop as `not_selected_by_<kind>`.

    Under a pinned fit the rows are ranked by what was learned then, and the budget is taken of the rows there are now.
    """

    def reads(self) -> tuple[str, ...]:
        """Names of the columns it ranks by."""
        raise ContractError(f"{type(self).__name__} does not implement reads()")

    def rank(self, rows: pl.LazyFrame, context: Context) -> Ranking:
        """Score every eligible row and name the others; rows come as in `Rule.judge`.

        One that learns from the eligible rows asks `affordable` before it does, which refuses where there are none.

        Raises:
            CuveeError: nothing to rank by, with what was found and what to do.
        """
        raise ContractError(f"{type(self).__name__} does not implement rank()")

    def reason(self) -> str:
        """The reason code of eligible rows that the budget did not reach."""
        return f"not_selected_by_{self.kind}"

    def describe(self, kept: pl.DataFrame) -> dict[str, Any]:
        """What the record says of the rows that were kept: of `Ranking.rows` those, with all their columns."""
        return {}

    @final
    def columns(self) -> tuple[str, ...]:
        """What it ranks by, and the captions where tokens are counted."""
        counted = (CAPTION.name,) if self.tokens is not None and CAPTION.name not in self.reads() else ()
        return (*self.reads(), *counted)

    @final
    def judge(self, rows: pl.LazyFrame, context: Context) -> Verdict:
        """Rank the rows and keep the budget's worth.

        Raises:
            CuveeError: the budget is more than there is, with both numbers; or what `rank` refuses.
            ContractError: a score that is not finite, or a row ranked twice.
        """
        ranking = self.rank(rows, context)
        schema = DRAWN_SCHEMA if "importance" in ranking.rows.columns else SCORES_SCHEMA
        ranked = ranking.rows.select(*schema).cast(schema).sort("uid")  # type: ignore[arg-type]
        if ranked["uid"].n_unique() != len(ranked) or not all(ranked[name].is_finite().all() for name in [*schema][1:]):
            raise ContractError(f"selector {self.kind!r} ranked a row twice, or by a score that is not finite")
        chosen = pl.Series(self.chosen(rows, ranked, context, ranking.dropped))
        kept, others = ranked.filter(chosen), ranked.filter(~chosen)
        evidence = {
            "budget": {**self.facts(), "eligible": len(ranked), "kept": len(kept)},
            "border": kept["score"].min(),
            **ranking.evidence,
            **self.describe(ranking.rows.join(kept, on="uid", how="semi").sort("uid")),
        }
        weights = ranking.weights.join(kept, on="uid", how="semi") if ranking.weights is not None else None
        dropped = pl.concat([ranking.dropped, drop_lines(others, self.reason())]).sort("uid")
        return Verdict(dropped, weights, ranked, evidence, ranking.fit)

    @final
    def chosen(
        self, rows: pl.LazyFrame, ranked: pl.DataFrame, context: Context, others: pl.DataFrame | None = None
    ) -> Mask:
        """(n,) which of `ranked` (uid, score) the budget keeps, for evidence that is of what is kept.

        Args:
            rows: as in `judge`.
            ranked: the eligible rows.
            context: of the rule.
            others: verdict lines of the others, for a refusal.
        """
        return self.take(self.counted(rows, ranked, context), context.seed, self.kind, others)

    @final
    def counted(self, rows: pl.LazyFrame, ranked: pl.DataFrame, context: Context) -> pl.DataFrame:
        """`ranked` in its order, with `tokens` of each caption where the budget counts them."""
        if self.tokens is None or "tokens" in ranked.columns:
            return ranked
        counted = pl.concat(context.each_part(rows, lambda part: part.select("uid", TOKENS)))
        return ranked.join(counted, on="uid", how="left", maintain_order="left")

    @final
    def affordable(self, rows: pl.LazyFrame, eligible: pl.DataFrame, others: pl.DataFrame, context: Context) -> int:
        """`Budget.rows` of the `eligible` (uid), `others` being the verdict lines of the rest: ask before learning.

        Raises:
            CuveeError: see `Budget.rows`.
        """
        tokens = 0 if self.tokens is None else int(self.counted(rows, eligible, context)["tokens"].sum())
        return self.rows(len(eligible), tokens, others)

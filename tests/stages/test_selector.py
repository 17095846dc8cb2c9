from typing import Literal

import polars as pl
import pytest
from pydantic import ValidationError

from schemas.errors import ContractError, CuveeError
from stages.rule import DRAWN_SCHEMA, DROPPED_SCHEMA, SCORES_SCHEMA, Context, Verdict, missing_rows, scores_told
from stages.selector import Ranking, Selector

ROWS = pl.DataFrame(
    {
        "uid": ["a", "b", "c", "d"],
        "source": ["s"] * 4,
        "price": [1.0, None, 3.0, 2.0],
        "caption": ["one two", "x", "one", "one two three"],
    }
)


class Dearest(Selector):
    kind: Literal["dearest"] = "dearest"

    def reads(self):
        return ("price",)

    def rank(self, rows, context):
        table = rows.select("uid", "price").collect()
        return Ranking(
            table.drop_nulls().select("uid", pl.col("price").alias("score")),
            missing_rows(table, "price"),
            {"priced": 3},
            weights=pl.DataFrame({"uid": ["c", "d"], "weight": [2.0, 3.0]}),
        )


class Broken(Dearest):
    kind: Literal["broken"] = "broken"
    score: float

    def rank(self, rows, context):
        return Ranking(pl.DataFrame({"uid": ["a", "a"], "score": [1.0, self.score]}))


class Drawn(Dearest):
    kind: Literal["drawn"] = "drawn"
    noise: float = 2.5

    def rank(self, rows, context):
        ranking = super().rank(rows, context)
        drawn = ranking.rows.with_columns(pl.col("score").alias("importance"), pl.col("score") + self.noise)
        return Ranking(drawn, ranking.dropped)


def judged(rule):
    return rule.judge(ROWS.lazy(), Context(0))


def test_ranks_counts_and_says_why():
    verdict = judged(Dearest(samples=1))
    assert dict(verdict.dropped.schema) == DROPPED_SCHEMA
    assert dict(verdict.scores.schema) == SCORES_SCHEMA
    reasons = dict(verdict.dropped.select("uid", "reason").iter_rows())
    assert reasons == {"a": "not_selected_by_dearest", "b": "price_missing", "d": "not_selected_by_dearest"}
    assert verdict.scores.rows() == [("a", 1.0), ("c", 3.0), ("d", 2.0)]
    assert verdict.weights.rows() == [("c", 2.0)]
    assert verdict.evidence["budget"] == {"samples": 1, "eligible": 3, "kept": 1}
    assert verdict.evidence["border"] == 3.0


def test_a_refusal_says_what_was_not_eligible():
    with pytest.raises(CuveeError, match=r"and there are 3 eligible rows, 1 not eligible: 1 as price_missing; lower"):
        judged(Dearest(samples=4))


def test_a_budget_of_tokens_reads_captions():
    assert Dearest(samples=1).columns() == ("price",)
    assert Dearest(tokens=4).columns() == ("price", "caption")
    verdict = judged(Dearest(tokens=4))
    assert verdict.dropped["uid"].to_list() == ["a", "b"]


def test_scores_are_finite_and_rows_ranked_once():
    with pytest.raises(ContractError, match="twice"):
        judged(Broken(samples=1, score=2.0))
    with pytest.raises(ContractError, match="finite"):
        judged(Broken(samples=1, score=float("nan")))
    with pytest.raises(ContractError, match="finite"):
        judged(Drawn(samples=1, noise=float("inf")))


def test_one_who_draws_says_what_a_row_is_worth_without_the_noise():
    verdict = judged(Drawn(samples=1))
    assert dict(verdict.scores.schema) == DRAWN_SCHEMA
    assert scores_told(verdict).rows() == [("a", 3.5, 1.0), ("c", 5.5, 3.0), ("d", 4.5, 2.0)]
    assert scores_told(judged(Dearest(samples=1))).rows()[0] == ("a", 1.0, None)
    assert scores_told(Verdict()).schema == DRAWN_SCHEMA


def test_one_budget():
    with pytest.raises(ValidationError, match="name exactly one"):
        Dearest()

from math import ceil, inf, nan

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from schemas.errors import CuveeError, RecipeError
from stages.fit import Fit
from stages.rule import DROPPED_SCHEMA, Context, Rule, Verdict
from stages.thresholds import AtLeast, AtMost, TopFraction

SCORES = st.lists(st.one_of(st.none(), st.integers(-5, 5).map(lambda i: i / 4)), min_size=0, max_size=60)


def table(scores: list[float | None], dtype: pl.DataType | type[pl.DataType] = pl.Float32) -> pl.DataFrame:
    uids = [f"{number:04d}" for number in range(len(scores))]
    sources = ["ab"[number % 2] for number in range(len(scores))]
    return pl.DataFrame(
        {"uid": uids, "source": sources, "score": scores},
        schema={"uid": pl.String, "source": pl.String, "score": dtype},
    )


def judge(rule: Rule, rows: pl.DataFrame, seed: int = 0) -> Verdict:
    verdict = rule.judge(rows.lazy(), Context(seed))
    assert dict(verdict.dropped.schema) == DROPPED_SCHEMA
    return verdict


def kept(rule: Rule, rows: pl.DataFrame, seed: int = 0) -> list[str]:
    return rows.join(judge(rule, rows, seed).dropped, on="uid", how="anti")["uid"].to_list()


@given(SCORES, st.integers(-5, 5).map(lambda i: i / 4))
def test_values_cut_as_plain_python_would(scores: list[float | None], value: float) -> None:
    rows = table(scores)
    verdict = judge(AtLeast(column="score", value=value), rows)
    reasons = dict(verdict.dropped.select("uid", "reason").iter_rows())
    expected = {}
    for uid, score in zip(rows["uid"], scores, strict=True):
        if score is None:
            expected[uid] = "score_missing"
        elif score < value:
            expected[uid] = "below_score"
    assert reasons == expected
    above = judge(AtMost(column="score", value=value), rows).dropped.filter(pl.col("reason") == "above_score")
    assert above["uid"].to_list() == [
        u for u, s in zip(rows["uid"], scores, strict=True) if s is not None and s > value
    ]


@pytest.mark.parametrize("written", [0.1, 0.28, 0.7, 1e-3, 3.3])
def test_a_value_is_compared_in_the_column_s_precision(written: float) -> None:
    rows = table([written, float(np.nextafter(np.float32(written), np.float32(-1)))])
    assert kept(AtLeast(column="score", value=written), rows) == ["0000"]
    upper = table([written, float(np.nextafter(np.float32(written), np.float32(9)))])
    assert kept(AtMost(column="score", value=written), upper) == ["0000"]


@pytest.mark.parametrize("dtype", [pl.Int32, pl.UInt64, pl.Int64, pl.UInt8])
def test_whole_numbers_are_cut_exactly(dtype: pl.DataType) -> None:
    rows = table([0, 1, 2, 3], dtype)
    assert kept(AtLeast(column="score", value=1.5), rows) == ["0002", "0003"]
    assert kept(AtMost(column="score", value=1.5), rows) == ["0000", "0001"]
    assert kept(AtLeast(column="score", value=-3), rows) == ["0000", "0001", "0002", "0003"]
    assert kept(AtMost(column="score", value=1e30), rows) == ["0000", "0001", "0002", "0003"]
    assert kept(AtLeast(column="score", value=1e30), rows) == []
    assert kept(AtMost(column="score", value=-1e30), rows) == []


def test_large_whole_numbers_keep_their_last_digit() -> None:
    rows = table([2**63 - 1, 2**63, 2**63 + 1], pl.UInt64)
    assert kept(AtLeast(column="score", value=float(2**63)), rows) == ["0001", "0002"]


@given(SCORES, st.integers(1, 20).map(lambda i: i / 20), st.booleans())
def test_top_fraction_keeps_everything_from_the_kth_largest_on(
    scores: list[float | None], fraction: float, per_source: bool
) -> None:
    rows = table(scores)
    expected = []
    for source in ["a", "b"] if per_source else ["ab"]:
        group = rows.filter(pl.col("source").is_in(list(source))).drop_nulls("score")
        if len(group):
            k = ceil(round(fraction * 20) * len(group) / 20 - 1e-9)
            border = sorted(group["score"], reverse=True)[k - 1]
            expected += group.filter(pl.col("score") >= border)["uid"].to_list()
    rule = TopFraction(column="score", fraction=fraction, per_source=per_source)
    assert kept(rule, rows) == sorted(expected)


@given(SCORES, st.integers(1, 20).map(lambda i: i / 20))
def test_exact_keeps_k_rows_of_those_that_tie(scores: list[float | None], fraction: float) -> None:
    rows = table(scores)
    n = len([score for score in scores if score is not None])
    exact = kept(TopFraction(column="score", fraction=fraction, exact=True), rows)
    assert len(exact) == ceil(round(fraction * 20) * n / 20 - 1e-9)
    assert set(exact) <= set(kept(TopFraction(column="score", fraction=fraction), rows))


@pytest.mark.parametrize(("fraction", "n"), [(0.3, 10), (0.7, 10), (0.1, 30), (0.07, 100), (0.29, 100), (0.55, 100)])
def test_a_fraction_is_the_decimal_it_is_written_as(fraction: float, n: int) -> None:
    k = round(fraction * 100) * n // 100
    assert len(kept(TopFraction(column="score", fraction=fraction), table(list(range(n))))) == k


def test_the_smallest_fraction_keeps_a_row() -> None:
    assert kept(TopFraction(column="score", fraction=1e-9), table([1.0, 3.0, 2.0])) == ["0001"]


@given(st.lists(st.floats(-1, 1, width=32), min_size=1, max_size=80), st.floats(0.01, 0.99))
def test_compat_equals_datacomp(scores: list[float], fraction: float) -> None:
    # mlfoundations/datacomp, baselines/utils.py: the threshold is the int(n f)-th of the descending sort.
    threshold = -np.sort(-np.array(scores, np.float32))[int(len(scores) * fraction)]
    expected = [f"{i:04d}" for i, score in enumerate(scores) if np.float32(score) >= threshold]
    assert kept(TopFraction(column="score", fraction=fraction, compat="datacomp"), table(list(scores))) == expected


def test_compat_of_everything_keeps_everything() -> None:
    assert len(kept(TopFraction(column="score", fraction=1, compat="datacomp"), table([1.0, 2.0]))) == 2


def test_ties_depend_on_seed_and_uid_only() -> None:
    rows = table([0.5] * 40)
    rule = TopFraction(column="score", fraction=0.5, exact=True)
    chosen = kept(rule, rows, seed=1)
    assert sorted(kept(rule, rows.sample(fraction=1, shuffle=True, seed=3), seed=1)) == chosen
    assert kept(rule, rows, seed=2) != chosen


def test_evidence_names_the_lines_to_draw() -> None:
    rows = table([0.1, 0.9, 0.2, 0.8, None, 0.7])
    evidence = judge(TopFraction(column="score", fraction=0.5, per_source=True), rows).evidence
    assert evidence["column"] == "score"
    assert evidence["thresholds"] == {"a": pytest.approx(0.2), "b": pytest.approx(0.8)}
    assert evidence["sources"] == {
        "a": {"scored": 2, "missing": 1, "kept": 1},
        "b": {"scored": 3, "missing": 0, "kept": 2},
    }
    assert judge(AtLeast(column="score", value=0.5), rows).evidence["thresholds"] == {"": 0.5}


def test_an_empty_table_is_no_error() -> None:
    for rule in (AtLeast(column="score", value=0), TopFraction(column="score", fraction=0.5)):
        assert judge(rule, table([])).dropped.is_empty()
        assert judge(rule, table([None])).dropped["reason"].to_list() == ["score_missing"]


@pytest.mark.parametrize("rule", [AtLeast(column="score", value=1), TopFraction(column="score", fraction=0.5)])
def test_words_cannot_be_ranked(rule: Rule) -> None:
    rows = pl.DataFrame({"uid": ["0"], "source": ["a"], "score": ["high"]})
    with pytest.raises(RecipeError, match=r"'score' holds String"):
        rule.judge(rows.lazy(), Context(0))


@pytest.mark.parametrize(
    "settings",
    [
        {"column": "score", "fraction": 0},
        {"column": "score", "fraction": 1.01},
        {"column": "score", "fraction": nan},
        {"column": "score", "fraction": 0.5, "compat": "laion"},
        {"column": "caption", "fraction": 0.5},
        {"column": "image_embedding", "fraction": 0.5},
    ],
)
def test_senseless_settings_are_refused(settings: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        TopFraction.model_validate(settings)


@pytest.mark.parametrize("value", [nan, inf, -inf])
def test_a_threshold_is_a_finite_number(value: float) -> None:
    with pytest.raises(ValidationError):
        AtLeast(column="score", value=value)


def pinned(rule: Rule, rows: pl.DataFrame, fit: Fit | None) -> Verdict:
    verdict = rule.judge(rows.lazy(), Context(0, fit=fit))
    assert verdict.fit == fit
    return verdict


@given(SCORES, st.integers(1, 20).map(lambda i: i / 20), st.booleans())
def test_a_pinned_border_decides_as_it_did(scores: list[float | None], fraction: float, per_source: bool) -> None:
    rows = table(scores)
    rule = TopFraction(column="score", fraction=fraction, per_source=per_source)
    fresh = judge(rule, rows)
    again = pinned(rule, rows, fresh.fit)
    assert again.dropped.equals(fresh.dropped) and again.evidence == fresh.evidence
    more = pl.concat([rows, rows.with_columns(uid="new-" + pl.col("uid"), score=-pl.col("score"))])
    old = pinned(rule, more, fresh.fit).dropped.filter(~pl.col("uid").str.starts_with("new-"))
    assert old.equals(fresh.dropped)


def test_a_pinned_border_breaks_no_ties() -> None:
    rule = TopFraction(column="score", fraction=0.5, exact=True)
    fresh = judge(rule, table([1, 1, 1, 1]))
    assert len(fresh.dropped) == 2
    assert len(pinned(rule, table([1, 1, 1, 1, 0.5]), fresh.fit).dropped) == 1


def test_whole_numbers_keep_their_border() -> None:
    rule = TopFraction(column="score", fraction=0.5)
    rows = table([2**63 - 1, 2**63, 2**63 + 1, 2**63 + 2], pl.UInt64)
    fresh = judge(rule, rows)
    assert fresh.fit is not None and fresh.fit.facts == {"borders": {"": 2**63 + 1}}
    assert pinned(rule, rows, fresh.fit).dropped.equals(fresh.dropped)


def test_a_source_without_a_pinned_border_is_refused() -> None:
    rows = table([1, 2, 3, 4])
    rule = TopFraction(column="score", fraction=0.5, per_source=True)
    fit = judge(rule, rows.filter(pl.col("source") == "a")).fit
    with pytest.raises(CuveeError, match=r"source 'b' has no pinned border for 'score', only \['a'\].*run once"):
        pinned(rule, rows, fit)
    whole = TopFraction(column="score", fraction=0.5)
    with pytest.raises(CuveeError, match=r"the pool has no pinned border .* only nothing"):
        pinned(whole, rows, judge(whole, table([None])).fit)
    assert judge(AtLeast(column="score", value=1), rows).fit is None

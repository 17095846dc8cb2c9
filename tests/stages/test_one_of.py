import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from schemas.errors import RecipeError
from stages.one_of import NoneOf, OneOf
from stages.rule import DROPPED_SCHEMA, Context, Rule, Verdict

NAMES = st.lists(st.one_of(st.none(), st.sampled_from(["en", "de", "EN", "", "n", "source"])), max_size=30)


def table(values: list[str | bool | None], dtype: type[pl.DataType] = pl.String) -> pl.DataFrame:
    uids = [f"{number:03d}" for number in range(len(values))]
    sources = ["ab"[number % 2] for number in range(len(values))]
    frame = {"uid": uids, "source": sources, "language": values}
    return pl.DataFrame(frame, schema={"uid": pl.String, "source": pl.String, "language": dtype})


def judge(rule: Rule, rows: pl.DataFrame) -> Verdict:
    verdict = rule.judge(rows.lazy(), Context(0))
    assert dict(verdict.dropped.schema) == DROPPED_SCHEMA
    return verdict


@settings(deadline=None)
@given(NAMES, st.lists(st.sampled_from(["en", "de", "n", "source", "fr"]), min_size=1, max_size=4))
def test_names_are_compared_as_plain_python_would(values: list[str | None], wanted: list[str]) -> None:
    rows = table(list(values))
    for rule, code in (
        (OneOf(column="language", values=tuple(wanted)), "other_language"),
        (NoneOf(column="language", values=tuple(wanted)), "excluded_language"),
    ):
        expected = {}
        for uid, value in zip(rows["uid"], values, strict=True):
            if value is None:
                expected[uid] = "language_missing"
            elif (value in wanted) == (code == "excluded_language"):
                expected[uid] = code
        assert dict(judge(rule, rows).dropped.select("uid", "reason").iter_rows()) == expected


def test_true_and_false_are_names() -> None:
    rows = table([True, False, None], pl.Boolean)
    assert judge(OneOf(column="language", values=(True,)), rows).dropped["uid"].to_list() == ["001", "002"]


def test_the_evidence_counts_the_listed_names_only() -> None:
    rows = table(["en", "en", "secret", "de", None])
    evidence = judge(OneOf(column="language", values=("en", "fr")), rows).evidence
    assert evidence == {"column": "language", "n": 4, "sources": {"a": {"en": 1}, "b": {"en": 1}}}


def test_what_yaml_reads_as_true_or_false_is_pointed_out() -> None:
    """An unquoted `no` is Norwegian to its writer and false to YAML."""
    with pytest.raises(
        RecipeError, match="compared with False; it holds text: in YAML, no, yes, on and off need quotes"
    ):
        judge(OneOf(column="language", values=("en", False)), table(["en"]))
    with pytest.raises(RecipeError, match="compared with 'yes'; it holds true and false"):
        judge(NoneOf(column="language", values=("yes",)), table([True], pl.Boolean))


def test_numbers_are_no_names() -> None:
    with pytest.raises(ValidationError, match="holds int32, not names"):
        OneOf(column="words", values=("3",))
    with pytest.raises(ValidationError):
        OneOf(column="language", values=())
    with pytest.raises(ValidationError):
        NoneOf(column="language", values=(3,))  # type: ignore[arg-type]
    rows = pl.DataFrame({"uid": ["0"], "source": ["a"], "language": [3]})
    with pytest.raises(RecipeError, match="holds Int64, not names"):
        OneOf(column="language", values=("3",)).judge(rows.lazy(), Context(0))

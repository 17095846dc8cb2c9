import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from schemas.errors import RecipeError
from stages.duplicates.exact_duplicates import ExactDuplicates
from stages.rule import DROPPED_SCHEMA, Context

SCHEMA = {
    "uid": pl.String,
    "source": pl.String,
    "image_hash": pl.String,
    "caption": pl.String,
    "score": pl.Float32,
}
LINE = st.tuples(
    st.one_of(st.none(), st.sampled_from("abc")),
    st.one_of(st.none(), st.sampled_from("xy")),
    st.one_of(st.none(), st.integers(0, 2).map(float)),
)


def table(lines: list[tuple[str | None, str | None, float | None]]) -> pl.DataFrame:
    rows = [(f"{number:03d}", "s", *line) for number, line in enumerate(lines)]
    return pl.DataFrame(rows, schema=SCHEMA, orient="row")


@pytest.mark.parametrize("of", ["image", "sample"])
@pytest.mark.parametrize("prefer", [None, "score"])
@given(lines=st.lists(LINE, max_size=30))
def test_one_of_each_set_of_equals_survives(of, prefer, lines) -> None:  # type: ignore[no-untyped-def]
    rows = table(lines)
    expected = {}
    for uid, _, image, caption, score in rows.iter_rows():
        same = [
            (-(other[4] if other[4] is not None else -1) if prefer else 0, other[0])
            for other in rows.iter_rows()
            if image is not None and other[2] == image and (of == "image" or other[3] == caption)
        ]
        assert score is None or score >= 0
        if same and min(same)[1] != uid:
            expected[uid] = min(same)[1]
    shuffled = rows.sample(fraction=1, shuffle=True, seed=len(lines))
    verdict = ExactDuplicates(of=of, prefer=prefer).judge(shuffled.lazy(), Context(0))
    assert dict(verdict.dropped.schema) == DROPPED_SCHEMA
    assert dict(verdict.dropped.select("uid", "duplicate_of").iter_rows()) == expected
    assert set(verdict.dropped["reason"]) <= {"exact_duplicate"} and set(verdict.dropped["similarity"]) <= {1.0}
    assert verdict.evidence["groups"] == len(set(expected.values()))


def test_the_largest_group_counts_its_survivor() -> None:
    rows = table([("a", "x", 0.0)] * 3 + [("b", "x", 0.0)])
    assert ExactDuplicates().judge(rows.lazy(), Context(0)).evidence == {
        "of": "image",
        "groups": 1,
        "largest_group": 3,
    }
    assert ExactDuplicates().judge(rows.tail(1).lazy(), Context(0)).evidence["largest_group"] == 0


def test_a_preference_is_a_number() -> None:
    with pytest.raises(ValidationError, match="not numbers"):
        ExactDuplicates(prefer="caption")
    rows = table([("a", "x", 0.0)]).with_columns(pl.lit("high").alias("score"))
    with pytest.raises(RecipeError, match="'score' holds String"):
        ExactDuplicates(prefer="score").judge(rows.lazy(), Context(0))


@given(st.lists(LINE, max_size=30), st.sampled_from(["image", "sample"]), st.integers(2, 5))
def test_parts_do_not_show(lines: list[tuple[str | None, str | None, float | None]], of: str, number: int) -> None:
    rows = table(lines)
    rule = ExactDuplicates.model_validate({"of": of, "prefer": "score"})
    parts = tuple(rows.filter(pl.int_range(pl.len()) * 7 % number == part).lazy() for part in range(number))
    whole, cut = (rule.judge(rows.lazy(), Context(0, parts=each)) for each in ((), parts))
    assert cut.dropped.equals(whole.dropped) and cut.evidence == whole.evidence

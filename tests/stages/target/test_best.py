import numpy as np
import polars as pl
import pytest
from pydantic import ValidationError

from schemas.errors import RecipeError
from stages.rule import Context
from stages.target.best import Best

ROWS = pl.DataFrame(
    {
        "uid": [f"{row:03d}" for row in range(9)],
        "source": ["a", "b", "a"] * 3,
        "clip_score": pl.Series([0.1, 0.3, None, 0.2, 0.3, 0.3, 0.05, 0.1, 0.0], dtype=pl.Float32),
        "words": pl.Series([4, 2, 9, 2, 2, 1, 7, 5, None], dtype=pl.Int32),
        "script": ["Latin"] * 9,
    }
)


def kept(rule: Best, seed: int = 0) -> list[str]:
    verdict = rule.judge(ROWS.lazy(), Context(seed))
    return sorted(set(ROWS["uid"]) - set(verdict.dropped["uid"]))


def test_the_highest_or_the_lowest_values() -> None:
    assert kept(Best(column="clip_score", samples=3)) == ["001", "004", "005"]
    assert kept(Best(column="words", samples=3)) == ["002", "006", "007"]
    assert kept(Best(column="words", lowest=True, samples=1)) == ["005"]
    verdict = Best(column="clip_score", fraction=0.5).judge(ROWS.lazy(), Context(0))
    assert verdict.evidence["budget"] == {"fraction": 0.5, "eligible": 8, "kept": 4}
    assert verdict.evidence["border"] == pytest.approx(0.2)
    assert dict(verdict.dropped.select("uid", "reason").iter_rows())["002"] == "clip_score_missing"


def test_a_border_that_cuts_through_ties_keeps_exactly_the_budget() -> None:
    chosen = {tuple(kept(Best(column="clip_score", samples=2), seed)) for seed in range(20)}
    assert chosen == {("001", "004"), ("001", "005"), ("004", "005")}


def test_scores_are_the_columns_values_to_the_bit() -> None:
    values = np.random.default_rng(0).uniform(0, 1, 500).astype(np.float32)
    rows = pl.DataFrame({"uid": [f"{row:03d}" for row in range(500)], "source": "s", "clip_score": values})
    found = Best(column="clip_score", samples=50).judge(rows.lazy(), Context(0))
    assert found.scores is not None and (found.scores["score"].to_numpy() == values.astype(np.float64)).all()
    expected = set(np.argsort(-values)[:50].tolist())
    assert {int(uid) for uid in set(rows["uid"]) - set(found.dropped["uid"])} == expected


def test_a_column_of_words_is_refused() -> None:
    with pytest.raises(ValidationError, match="holds string, not numbers"):
        Best(column="script", samples=1)
    with pytest.raises(RecipeError, match="holds String, not numbers"):
        Best(column="own", samples=1).judge(ROWS.rename({"script": "own"}).lazy(), Context(0))

"""What a report draws of the steps: by the columns that their verdicts have, whatever the method."""

import polars as pl

from pipeline.rankings import KEPT, NOT_KEPT, ranking_views
from pipeline.report.view import Threshold
from pipeline.select import Decision
from stages.duplicates.perceptual_hash import NearDuplicateImages
from stages.rule import Verdict, drop_lines

ROWS = pl.DataFrame({"uid": ["a", "b", "c", "d"], "score": [4.0, 1.0, 3.0, 2.0]})
LOST = ROWS.filter(pl.col("uid").is_in(["b", "d"])).with_columns(
    pl.lit("a").alias("duplicate_of"), pl.Series("similarity", [0.9, 0.95])
)


def told(verdict: Verdict, **more: object) -> dict[str, dict[str, list[float]]]:
    found = ranking_views([Decision("step", "kind", verdict, 4, number=2, **more)])  # type: ignore[arg-type]
    views = list(found)
    assert {view.step for view in views} <= {"2. step"}
    return {v.score.column: {fate: values.tolist() for fate, values in v.score.values.items()} for v in views}


def test_scores_are_told_by_fate_with_the_border() -> None:
    verdict = Verdict(drop_lines(LOST.select("uid"), "out"), scores=ROWS, evidence={"border": 3.0})
    assert told(verdict) == {"score": {KEPT: [4.0, 3.0], NOT_KEPT: [1.0, 2.0]}}
    (view,) = ranking_views([Decision("step", "kind", verdict, 4)])
    assert view.score.thresholds == (Threshold(3.0),) and view.score.muted == (NOT_KEPT,)


def test_importance_and_weights_are_told_where_they_are() -> None:
    weights = pl.DataFrame({"uid": ["a", "c"], "weight": [0.5, 1.5]})
    scores = ROWS.with_columns((pl.col("score") - 1).alias("importance"))
    found = told(Verdict(drop_lines(LOST.select("uid"), "out"), weights, scores))
    assert found["importance"] == {KEPT: [3.0, 2.0], NOT_KEPT: [0.0, 1.0]}
    assert found["weight"] == {KEPT: [0.5, 1.5]}
    assert told(Verdict(weights=weights.with_columns(weight=1.0))) == {}


def test_duplicates_are_told_by_how_alike_they_are() -> None:
    verdict, rule = Verdict(drop_lines(LOST, "twin")), NearDuplicateImages()
    assert told(verdict, rule=rule) == {"similarity": {NOT_KEPT: [0.9, 0.95]}}
    (view,) = ranking_views([Decision("step", "kind", verdict, 4, rule=rule)])
    assert rule.likeness in view.score.meaning
    assert told(Verdict(drop_lines(LOST.with_columns(similarity=1.0), "twin"))) == {}
    assert told(Verdict()) == {}

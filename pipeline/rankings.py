"""What the steps of the fold went by, kept rows beside the others, for the report: whatever the method."""

from collections.abc import Iterable, Iterator, Sequence

import polars as pl

from pipeline.report.view import RankingView, ScoreView, Threshold
from pipeline.select import Decision
from stages.rule import scores_told

KEPT, NOT_KEPT = "kept", "not kept"
RANKED_BY = {
    "score": "What rows were ranked by, the highest first.",
    "importance": "The score without the noise of the draw.",
}
WEIGHT = "How much a kept row weighs when rows are drawn for the export; others weigh 1."
SIMILARITY = "Of rows that left to the one that stayed"


def ranking_views(decisions: Sequence[Decision]) -> Iterator[RankingView]:
    """Of each step that tells more of a row than whether it stays; `column` is what the value is called."""
    for step in decisions:
        for score in (*_ranked(step), *_weighed(step), *_alike(step)):
            yield RankingView(step.title, score)


def _ranked(step: Decision) -> Iterable[ScoreView]:
    gone = step.verdict.dropped["uid"].implode()
    rows = scores_told(step.verdict).with_columns(pl.col("uid").is_in(gone).not_().alias("stays"))
    border = step.verdict.evidence.get("border")
    cuts = {"score": (Threshold(border),)} if isinstance(border, float | int) else {}
    for column, meaning in RANKED_BY.items():
        told = rows.filter(pl.col(column).is_not_null())
        sides = {KEPT: told.filter("stays"), NOT_KEPT: told.filter(~pl.col("stays"))}
        values = {name: side[column].to_numpy() for name, side in sides.items()}
        if len(told):
            yield ScoreView(column, values, meaning, thresholds=cuts.get(column, ()), muted=(NOT_KEPT,))


def _weighed(step: Decision) -> Iterable[ScoreView]:
    weights = step.verdict.weights
    if weights is not None and weights["weight"].n_unique() > 1:
        yield ScoreView("weight", {KEPT: weights["weight"].to_numpy()}, WEIGHT, muted=(NOT_KEPT,))


def _alike(step: Decision) -> Iterable[ScoreView]:
    """Duplicates, unless they are all equals."""
    found = step.verdict.dropped["similarity"].drop_nulls()
    if found.n_unique() > 1:
        likeness = step.rule.likeness if step.rule else ""
        meaning = f"{SIMILARITY}; {likeness}." if likeness else f"{SIMILARITY}."
        yield ScoreView("similarity", {NOT_KEPT: found.to_numpy()}, meaning, muted=(NOT_KEPT,))

"""ODiS: axes that do not correlate, tops that do not overlap, directions that do not flip."""

from itertools import combinations
from typing import Any

import numpy as np
import polars as pl
import pytest
from pydantic import ValidationError

from schemas.errors import CuveeError, RecipeError
from stages.fit import Fit
from stages.rule import Context, Verdict
from stages.target.odis import Odis, correlations, principal_axes

NAMES = ("clip_score", "mlm_object_detail", "mlm_caption_quality", "mlm_semantic_understanding", "normsim_2")


def correlated(rows: int, seed: int, names: tuple[str, ...] = NAMES) -> pl.DataFrame:
    """Scores of very different scales that share one thing, pairwise correlation about 0.7."""
    noise = np.random.default_rng(seed)
    shared = noise.normal(size=rows)
    columns = {
        name: ((shared + 0.65 * noise.normal(size=rows)) * 10.0**place + 3).astype(np.float32)
        for place, name in enumerate(names)
    }
    return pl.DataFrame({"uid": [f"{row:06d}" for row in range(rows)], "source": "s", **columns})


def judged(rows: pl.DataFrame, pin: Fit | None = None, **settings: Any) -> Verdict:
    return Odis(**{"scores": NAMES} | settings).judge(rows.lazy(), Context(0, fit=pin))


def projected(rows: pl.DataFrame, verdict: Verdict) -> np.ndarray:
    assert verdict.fit is not None
    values = rows.select(NAMES).cast(pl.Float64).to_numpy()
    fit = verdict.fit.arrays
    return np.asarray((values - fit["mean"]) / fit["deviation"] @ fit["axes"].T)


def kept(rows: pl.DataFrame, verdict: Verdict) -> set[int]:
    return {int(uid) for uid in set(rows["uid"]) - set(verdict.dropped["uid"])}


def test_axes_are_uncorrelated_and_their_tops_hardly_overlap() -> None:
    rows = correlated(20_000, 0)
    verdict = judged(rows, fraction=0.05)
    axes = projected(rows, verdict)
    between = np.corrcoef(axes.T) - np.eye(5)
    assert np.abs(between).max() < 1e-6
    places = verdict.evidence["rows_of_axis"]
    tops = [set(np.argsort(-axes[:, axis])[: places[f"axis {axis + 1}"]].tolist()) for axis in range(5)]
    overlaps = [len(one & other) / len(one) for one, other in combinations(tops, 2)]
    assert max(overlaps) <= 0.02
    # The same share of the raw scores, which correlate: up to a half in common.
    raw = rows.select(NAMES).to_numpy()
    heads = [set(np.argsort(-raw[:, column])[:200].tolist()) for column in range(5)]
    assert min(len(one & other) / len(one) for one, other in combinations(heads, 2)) > 0.1


def test_equals_an_eigendecomposition_and_a_union_of_tops() -> None:
    rows = correlated(500, 1)
    verdict = judged(rows, samples=60)
    values = rows.select(NAMES).cast(pl.Float64).to_numpy()
    standard = (values - values.mean(axis=0)) / values.std(axis=0)
    _, singular, loadings = np.linalg.svd(standard, full_matrices=False)
    shares = singular**2 / (singular**2).sum()
    assert verdict.fit is not None
    found = verdict.fit.arrays["axes"]
    assert np.abs(np.abs(found @ loadings.T) - np.eye(5)).max() < 1e-9
    assert [line["variance"] for line in verdict.evidence["axes"].values()] == pytest.approx(shares)
    axes, chosen, place = projected(rows, verdict), set(), 0
    while len(chosen) < 60:
        head = {int(np.argsort(-axes[:, axis])[place]) for axis in range(5)}
        if len(chosen | head) > 60:
            assert len(kept(rows, verdict) & head) == 60 - len(chosen) + len(chosen & head & kept(rows, verdict))
            break
        chosen, place = chosen | head, place + 1
    assert chosen <= kept(rows, verdict) and len(kept(rows, verdict)) == 60


def test_an_axis_points_where_its_heaviest_column_rises() -> None:
    rows = correlated(1000, 2)
    verdict = judged(rows, samples=10)
    assert verdict.fit is not None
    for axis in verdict.fit.arrays["axes"]:
        assert axis[np.abs(axis).argmax()] > 0
    # Two columns are always equally heavy: the first one named decides.
    for names in (NAMES[:2], NAMES[1::-1]):
        pair = judged(rows, samples=10, scores=names).fit
        assert pair is not None and (pair.arrays["axes"][:, 0] > 0).all()


def test_a_column_that_others_make_up_adds_no_axis() -> None:
    rows = correlated(300, 3)
    rows = rows.with_columns((2 * pl.col("clip_score") - 1).alias("own"))
    verdict = judged(rows, samples=10, scores=("clip_score", "normsim_2", "own"))
    assert list(verdict.evidence["axes"]) == ["axis 1", "axis 2"]
    assert list(judged(rows, samples=10, axes=1).evidence["axes"]) == ["axis 1"]


def test_a_pinned_fit_projects_other_rows_alike() -> None:
    first, other = correlated(400, 4), correlated(300, 5)
    fit = judged(first, samples=10).fit
    pinned = judged(other, fit, samples=10)
    assert pinned.fit == fit
    assert pinned.scores is not None and not pinned.scores.equals(judged(other, samples=10).scores)


def test_correlations_are_plain_sums() -> None:
    standard = np.random.default_rng(6).normal(size=(4, 300))
    standard = (standard - standard.mean(axis=1, keepdims=True)) / standard.std(axis=1, keepdims=True)
    assert correlations(standard) == pytest.approx(np.corrcoef(standard), abs=1e-12)
    variances, axes = principal_axes(np.corrcoef(standard))
    assert (np.diff(variances) <= 0).all() and axes @ axes.T == pytest.approx(np.eye(4), abs=1e-12)


def test_what_cannot_be_ranked_is_refused() -> None:
    rows = correlated(20, 7)
    with pytest.raises(CuveeError, match="'normsim_2' is the same in all 20 rows"):
        judged(rows.with_columns(pl.lit(1.0).alias("normsim_2")), samples=2)
    with pytest.raises(RecipeError, match="holds String"):
        judged(rows.with_columns(pl.lit("x").alias("own")), samples=2, scores=("clip_score", "own"))
    for settings, words in (
        ({"scores": ("clip_score",)}, "at least 2"),
        ({"scores": ("clip_score", "clip_score")}, "name each once"),
        ({"scores": ("clip_score", "caption")}, "holds string, not numbers"),
    ):
        with pytest.raises(ValidationError, match=words):
            Odis(samples=1, **settings)  # type: ignore[arg-type]


def test_a_constant_whose_mean_is_rounded_is_refused() -> None:
    rows = correlated(1000, 3).with_columns(pl.lit(0.1).alias("clip_score"))
    assert rows["clip_score"].to_numpy().mean() != 0.1
    with pytest.raises(CuveeError, match="'clip_score' is the same in all 1000 rows"):
        judged(rows, fraction=0.1)

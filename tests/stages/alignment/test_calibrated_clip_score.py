"""Calibration: zero and unit are those of the source's own mismatched pairs."""

import numpy as np
import polars as pl
import pytest

from schemas.errors import CuveeError
from stages.alignment.calibrated_clip_score import CalibratedClipScore, centre_and_unit, mismatched
from stages.fitted_stage import Examples
from tests.stages.vectors import batch, near, pairs, unit


def narrow(rows: int, seed: int) -> np.ndarray:
    """Unit vectors in a narrow cone: all cosines are high, as of one kind of picture."""
    values = unit(rows, 16, seed).astype(np.float64) * 0.5
    values[:, 0] += 2
    return (values / np.linalg.norm(values, axis=1, keepdims=True)).astype(np.float16)


WIDE, CONE = unit(400, 16, 1), narrow(400, 2)
POOL = pl.concat(
    [
        pairs(WIDE, near(WIDE, 0.7, 3), source="photos"),
        pairs(CONE, near(CONE, 0.2, 4), source="drawings", first=1000),
        pairs(unit(5, 16, 5), unit(5, 16, 6), source="few", first=2000),
    ]
)


def fitted(pool: pl.DataFrame = POOL) -> dict[str, tuple[float, float]]:
    found: dict[str, tuple[float, float]] = (
        CalibratedClipScore().learn(Examples({"pool": pool}, 0, {})).facts["sources"]
    )
    return found


def calibrated(rows: pl.DataFrame, source: str) -> np.ndarray:
    stage = CalibratedClipScore()
    fit = stage.learn(Examples({"pool": POOL}, 0, {}))
    return stage.open_with(fit, source)(batch(rows, stage.reads))["calibrated_clip_score"].to_numpy()


def test_every_shift_pairs_each_image_with_another_text() -> None:
    images, texts = unit(9, 4, 1), unit(9, 4, 2)
    products = images.astype(np.float64) @ texts.astype(np.float64).T
    assert sorted(mismatched(images, texts)) == sorted(products[~np.eye(9, dtype=bool)])


def test_the_unit_of_normal_scores_is_their_standard_deviation() -> None:
    centre, unit_ = centre_and_unit(np.random.default_rng(0).normal(0.2, 0.05, 100_000))
    assert centre == pytest.approx(0.2, abs=1e-3) and unit_ == pytest.approx(0.05, abs=1e-3)


def test_shuffled_pairs_of_any_source_lie_around_zero_and_true_ones_above() -> None:
    for source in ("photos", "drawings"):
        rows = POOL.filter(pl.col("source") == source)
        dots = np.einsum(
            "nd,nd->n",
            np.array(rows["image_embedding"].to_list()),
            np.roll(np.array(rows["text_embedding"].to_list()), 50, axis=0),
        )
        shuffled = calibrated(rows.with_columns(pl.Series("clip_score", dots, pl.Float32)), source)
        assert abs(np.median(shuffled)) < 0.2 and 0.8 < np.std(shuffled) < 1.3
        assert np.median(calibrated(rows, source)) > 1.5
    plain = {name: POOL.filter(pl.col("source") == name)["clip_score"].median() for name in ("photos", "drawings")}
    assert plain["drawings"] > plain["photos"] + 0.1, "plain cosines are not comparable, which is why this exists"


def test_small_sources_and_the_target_take_the_whole_pools_scale() -> None:
    sources = fitted()
    assert sources["few"] == sources[""] != sources["photos"]
    rows = POOL.head(3)
    assert np.array_equal(calibrated(rows, "target"), calibrated(rows, "few"))
    assert np.array_equal(calibrated(rows, "eval"), calibrated(rows, "few"))


def test_a_source_that_tells_nothing_apart_takes_the_whole_pools_scale() -> None:
    same = np.repeat(unit(1, 16, 9), 40, axis=0)
    sources = fitted(pl.concat([POOL, pairs(same, same, source="placeholders", first=3000)]))
    assert sources["placeholders"] == sources[""] != sources["photos"] == fitted()["photos"]


def test_a_pair_that_comes_again_and_again_counts_once() -> None:
    """In a source where most rows are one placeholder, the scale is that of the rest and one of it."""
    rows, one = pairs(WIDE, near(WIDE, 0.7, 3)), pairs(unit(1, 16, 7), unit(1, 16, 8), first=5000)
    again = pl.concat([one.with_columns(uid=pl.lit(f"{6000 + number:032x}")) for number in range(2000)])
    once = fitted(pl.concat([rows, one]))["photos"]
    assert fitted(pl.concat([rows, one, again]))["photos"] == pytest.approx(once, abs=2e-3)


def test_what_cannot_be_calibrated_is_refused() -> None:
    with pytest.raises(
        CuveeError, match=r"source 'new' is not in the fit, which knows \['drawings', 'few', 'photos'\]"
    ):
        calibrated(POOL.head(2), "new")
    with pytest.raises(CuveeError, match="5 distinct pool samples with embeddings; expected at least 9"):
        fitted(POOL.head(5))
    same = np.repeat(unit(1, 8, 1), 40, axis=0)
    with pytest.raises(CuveeError, match="embeddings that tell nothing apart"):
        fitted(pairs(same, same))

"""Levels: equal counts over the whole pool, the worst is 1."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.alignment.alignment_level import AlignmentLevel, level, level_cuts
from stages.fitted_stage import Examples
from tests.stages.vectors import batch, pairs, unit


def test_levels_have_equal_counts_and_rise_with_the_score() -> None:
    scores = np.random.default_rng(0).permutation(800) / 800
    found = level(scores, level_cuts(scores, 8))
    assert np.bincount(found).tolist() == [0] + [100] * 8
    assert np.array_equal(np.sort(found), found[np.argsort(scores)])


@given(st.lists(st.floats(-1, 1, width=32), min_size=1, max_size=40), st.integers(2, 100))
def test_equal_scores_have_equal_levels_between_1_and_the_last(scores: list[float], levels: int) -> None:
    values = np.array(scores)
    found = level(values, level_cuts(values, levels))
    assert found.min() >= 1 and found.max() <= levels
    by_score = dict(zip(scores, found.tolist(), strict=True))
    assert [by_score[score] for score in scores] == found.tolist()
    assert found[values.argmax()] == levels


def test_the_stage_keeps_its_cuts() -> None:
    images = unit(50, 8, 1)
    pool = pairs(images, unit(50, 8, 2))
    stage = AlignmentLevel(levels=5)
    fit = stage.learn(Examples({"pool": pool}, 0, {}))
    scores = pool["clip_score"].to_numpy().astype(np.float64)
    assert fit.facts["cuts"] == pytest.approx(np.sort(scores)[[10, 20, 30, 40]])
    found = stage.open_with(fit, "")(batch(pool, stage.reads))["alignment_level"].to_numpy()
    assert np.bincount(found).tolist() == [0, 10, 10, 10, 10, 10]

import itertools
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from pipeline.report.histograms import bin_edges, histogram, passing
from pipeline.report.training_charts import apart, averaged, curves_chart
from pipeline.report.view import ArmView, Curve, ScoreView, Threshold

NUMBERS = st.floats(-1e6, 1e6, width=32)
SAMPLES = arrays.arrays(np.float64, st.integers(1, 60), elements=NUMBERS | st.integers(-50, 50).map(float))


@given(SAMPLES, st.lists(NUMBERS, max_size=3))
def test_bins_rise_and_hold_the_bulk_and_every_cut(values: np.ndarray, marks: list[float]) -> None:
    edges, stretched = bin_edges(values, marks)
    assert np.all(np.diff(edges) > 0)
    assert 2 <= len(edges) <= 60
    assert not stretched or edges[0] > 0
    low, high = np.quantile(values, (0.005, 0.995))
    for mark in [low, high, *marks]:
        assert edges[0] <= mark <= edges[-1]


def test_whole_numbers_get_a_bin_each() -> None:
    edges, _ = bin_edges(np.array([3.0, 4, 4, 9]), [])
    assert edges.tolist() == [2.5, 3.5, 4.5, 5.5, 6.5, 7.5, 8.5, 9.5]


@given(SAMPLES, NUMBERS, NUMBERS)
def test_passing_is_what_a_loop_counts(values: np.ndarray, low: float, high: float) -> None:
    kept = sum(low <= value <= high for value in values.tolist())
    assert passing(values, (Threshold(low), Threshold(high, "at_most"))) == pytest.approx(kept / len(values))


def test_the_chart_says_what_passes_per_source() -> None:
    values = {"photos": np.arange(10.0), "catalog": np.array([np.nan, 1.0, 2.0, 3.0])}
    drawn = histogram(ScoreView("words", values, thresholds=(Threshold(5, source="photos"), Threshold(3))), "h")
    assert drawn is not None
    assert re.findall(r">([\d.]+ %)<", drawn.chart) == ["33.3 %", "50.0 %"]
    assert "1 without a value" in drawn.reading
    assert "13 samples" in drawn.reading


def test_fates_are_counted_and_what_did_not_pass_is_muted() -> None:
    values = {"kept": np.array([3.0, 4.0, 4.5]), "not kept": np.array([0.5, 1.0, 3.0, 3.0])}
    drawn = histogram(ScoreView("score", values, thresholds=(Threshold(3.0),), muted=("not kept",)), "h")
    assert drawn is not None
    assert "the last that was kept has 3" in drawn.reading and "at least" not in drawn.reading
    assert "%" not in drawn.chart and re.findall(r"> ?([34])</text>", drawn.chart)[-2:] == ["3", "4"]
    plain = histogram(ScoreView("importance", values, muted=("not kept",)), "h")
    assert plain is not None and "var(--soft)" in plain.chart and "var(--c1)" in plain.chart


def test_bars_stand_where_the_counts_are() -> None:
    drawn = histogram(ScoreView("words", {"photos": np.array([1.0, 1, 1, 1, 2, 2, 4])}), "h")
    assert drawn is not None
    path = re.search(r'<path d="([^"]+)"[^>]*style="fill: var\(--c1\)', drawn.chart)
    assert path is not None
    points = [(float(x), float(y)) for x, y in re.findall(r"[ML] ([\d.]+) ([\d.]+)", path.group(1))]
    base = max(y for _, y in points)
    heights = [base - y for _, y in points[1:8:2]]
    assert np.array(heights) / heights[0] == pytest.approx([1, 0.5, 0, 0.25], abs=0.01)


def test_many_sources_share_the_last_row() -> None:
    drawn = histogram(ScoreView("words", {f"s{n:02d}": np.arange(float(n + 2)) for n in range(20)}), "h")
    assert drawn is not None
    assert "13 others" in drawn.chart
    assert drawn.chart.count("<text") <= 8 * 2 + 8


def test_no_numbers_no_chart() -> None:
    assert histogram(ScoreView("words", {"photos": np.array([np.nan])}), "h") is None
    assert histogram(ScoreView("words", {}), "h") is None
    assert curves_chart(()) is None
    assert curves_chart((ArmView("raw", (Curve(0, np.zeros(0), np.zeros(0)),), {}),)) is None


@given(st.lists(st.floats(-100, 100), min_size=1, max_size=6), st.floats(0.01, 10))
def test_labels_move_apart_in_order(levels: list[float], gap: float) -> None:
    moved = apart(levels, gap)
    assert np.mean(moved) == pytest.approx(np.mean(levels), abs=1e-9)
    order = sorted(range(len(levels)), key=lambda place: (levels[place], place))
    for lower, upper in itertools.pairwise(order):
        assert moved[upper] - moved[lower] >= gap - 1e-9


@pytest.mark.parametrize("length", [1, 5, 80, 81, 300])
def test_curves_are_averaged_over_windows_that_cover_every_step(length: int) -> None:
    losses = np.random.default_rng(length).normal(size=(2, length))
    curves = [Curve(seed, np.arange(length), losses[seed]) for seed in range(2)]
    steps, means = averaged(curves)
    cuts = np.linspace(0, length, min(80, length) + 1).astype(int)
    windows = list(itertools.pairwise(cuts))
    assert steps == pytest.approx([np.arange(length)[a:b].mean() for a, b in windows])
    assert means == pytest.approx(np.array([[losses[seed, a:b].mean() for a, b in windows] for seed in range(2)]))

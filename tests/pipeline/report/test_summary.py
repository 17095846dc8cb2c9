# ruff: noqa: RUF001 -- the page writes true minus signs and dashes
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.report.summary import distances, funnel_rows, tiles, verdict
from pipeline.report.verdicts import verdict_table
from pipeline.report.view import Check, Difference, Metric, ReportView, StatusCount

COUNTS = st.lists(
    st.builds(
        StatusCount,
        st.sampled_from([f"source{number}" for number in range(14)]),
        st.sampled_from(["kept", "dropped", "quarantined"]),
        st.sampled_from([None, "a", "b"]),
        st.integers(0, 1000),
        st.sampled_from(["", "a", "a_2"]),
    ),
    max_size=60,
)


@given(COUNTS)
def test_the_table_loses_no_sample(lines: list[StatusCount]) -> None:
    table = verdict_table(ReportView("t", "r", 0, tuple(lines)))
    everything = sum(line.count for line in lines)
    assert sum(row.total for row in table.rows) == sum(table.totals) == everything
    assert len(table.sources) <= 10
    for place, total in enumerate(table.totals):
        assert sum(row.counts[place] for row in table.rows) == total
    named = [source for source in table.sources if "others" not in source]
    for source in named:
        assert table.totals[table.sources.index(source)] == sum(line.count for line in lines if line.source == source)


def test_one_reason_of_two_steps_stands_in_two_rows() -> None:
    lines = [StatusCount("s", "dropped", "below_words", n, step) for n, step in ((2, "at_least"), (3, "at_least_2"))]
    rows = verdict_table(ReportView("t", "r", 5, tuple(lines))).rows
    assert [(row.decided_by, row.total) for row in rows] == [("at_least_2", 3), ("at_least", 2)]


def test_tiles(view: ReportView) -> None:
    shown = {tile.label: (tile.value, tile.tone) for tile in tiles(view)}
    assert shown == {
        "in the pool": ("100", ""),
        "kept": ("50", ""),
        "dropped": ("48", ""),
        "quarantined": ("2", ""),
        "conservation": ("holds", "good"),
        "exported": ("200", ""),
        "selectors": ("3", ""),
        "target distance": ("0.410", "good"),
        "curated − raw": ("−0.30", "good"),
        "checks passed": ("1 of 1", "good"),
    }
    assert "most: near_duplicate" in [tile.detail for tile in tiles(view)]
    short = tiles(replace(view, exported=None, mixture=None, training=None, comparison=None, checks=()))
    assert len(short) == 5
    failed = tiles(replace(view, checks=(*view.checks, Check("twins found", "1 of 2", "all", False))))[-1]
    assert (failed.value, failed.detail, failed.tone) == ("1 of 2", "failed: twins found", "bad")


@pytest.mark.parametrize(
    ("low", "high", "better", "outcome"),
    [
        (-2, -1, "lower", "good"),
        (1, 2, "lower", "bad"),
        (1, 2, "higher", "good"),
        (-2, -1, "higher", "bad"),
        (-1, 1, "lower", ""),
        (0, 1, "higher", ""),
    ],
)
def test_a_gain_is_claimed_only_when_the_interval_excludes_zero(
    low: float, high: float, better: str, outcome: str
) -> None:
    difference = Difference("nll", "curated", "raw", (low + high) / 2, low, high)
    assert verdict(difference, Metric("nll", "NLL", better)) == outcome  # type: ignore[arg-type]


def test_funnel_bars_share_one_scale(view: ReportView) -> None:
    rows = funnel_rows(view)
    assert [[segment.percent for segment in row.segments] for row in rows] == [[98, 2], [70, 28], [50, 20]]
    assert [row.unaccounted for row in rows] == [0, 0, 0]
    assert [row.segments[1].tone for row in rows] == ["quarantined", "dropped", "dropped"]


def test_distances_are_ordered_and_scaled(view: ReportView) -> None:
    assert view.mixture is not None
    ranked = distances(view.mixture)
    assert [name for name, _, _ in ranked] == ["ideal", "exported", "uniform", "natural"]
    assert ranked[-1][2] == 100
    assert ranked[0][2] == pytest.approx(100 * 0.4 / 0.61)

"""Where every selector stands in one measure, beside where random draws lie."""

from typing import TYPE_CHECKING

from markupsafe import Markup

from pipeline.report import numbers
from pipeline.report.harmless import clip
from pipeline.report.svg import ACCENT, INK, MUTED, PAPER, RULE, SERIES, SOFT, blank, drawing, inline
from pipeline.report.view import ComparisonView, Metric, SelectorView

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_WIDTH_PX, _ROW_PX, _TOP_PX, _AXIS_PX = 400, 22, 4, 36
MOST = 24
"""Selectors drawn; the table has all of them."""


def measure_chart(view: ComparisonView, measure: Metric, label: str) -> Markup | None:
    """A row per selector, best first where one way is better; None where nobody has the measure."""
    rows = ranked(view, measure)[:MOST]
    if not rows:
        return None
    height = _TOP_PX + _ROW_PX * len(rows) + _AXIS_PX
    with drawing():
        figure = blank(_WIDTH_PX, height)
        axes = figure.add_axes((0.31, _AXIS_PX / height, 0.53, _ROW_PX * len(rows) / height))
        low, high = view.intervals.get(measure.name, (0.0, 0.0))
        axes.axvspan(low, high, color=SOFT, alpha=0.6, linewidth=0, zorder=0)
        if measure.name in view.everything.values:
            axes.axvline(
                view.everything.values[measure.name], color=MUTED, linewidth=1, linestyle=(0, (3, 3)), zorder=1
            )
        for place, row in zip(range(len(rows) - 1, -1, -1), rows, strict=True):
            _draw(axes, place + 0.5, row, measure)
        _dress(axes, measure, len(rows))
        spoken = "; ".join(f"{clip(row.name, 30)} {numbers.number(row.values[measure.name], 4)}" for row in rows)
        return inline(figure, label, clip(measure.label, 60), spoken)


def ranked(view: ComparisonView, measure: Metric) -> list[SelectorView]:
    """The selectors that have the measure, the best first."""
    sign = 1 if measure.better == "lower" else -1
    known = [row for row in view.selectors if measure.name in row.values]
    return sorted(known, key=lambda row: (sign * row.values[measure.name], row.name))


def verdict(row: SelectorView, measure: Metric) -> str:
    """good, bad, other (no way is better) or empty: whether it lies outside of random draws, and on which side."""
    side = row.against_random.get(measure.name, "within")
    if side == "within":
        return ""
    if not measure.better:
        return "other"
    return "good" if (side == "below") == (measure.better == "lower") else "bad"


def _draw(axes: "Axes", level: float, row: SelectorView, measure: Metric) -> None:
    colour = {"good": SERIES[2], "bad": SERIES[3], "other": SERIES[0], "": MUTED}[verdict(row, measure)]
    value, beside = row.values[measure.name], axes.get_yaxis_transform()
    axes.axhline(level, color=RULE, linewidth=1, zorder=0.5)
    axes.plot(value, level, "o", markersize=8, color=colour, markeredgecolor=PAPER, markeredgewidth=1, zorder=3)
    axes.text(-0.03, level, clip(row.name, 18), transform=beside, ha="right", va="center", color=INK)
    axes.text(1.04, level, numbers.number(value, 4), transform=beside, ha="left", va="center", color=INK)


def _dress(axes: "Axes", measure: Metric, rows: int) -> None:
    from matplotlib.ticker import MaxNLocator, ScalarFormatter

    axes.set_ylim(0, rows)
    axes.set_yticks([])
    axes.margins(x=0.08)
    axes.spines[["left", "right", "top", "bottom"]].set_visible(False)
    axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.xaxis.set_major_formatter(ScalarFormatter(useOffset=False))
    axes.tick_params(length=3)
    arrows = {"lower": "← closer is better", "higher": "more is better →", "": ""}
    axes.set_xlabel(arrows[measure.better], color=ACCENT if measure.better else MUTED)

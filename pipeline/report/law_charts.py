"""What laws say of mixtures they were not fitted on, and what each source buys."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from markupsafe import Markup

from pipeline.report import numbers
from pipeline.report.harmless import clip
from pipeline.report.svg import INK, MUTED, PAPER, RULE, SERIES, blank, drawing, inline
from pipeline.report.trials_view import LawView

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_SIDE_PX, _WIDTH_PX, _ROW_PX, _AXIS_PX = 280, 400, 24, 36
RUNS = 300
SOURCES = 24
SMALL = 1e-6
"""Slopes this small beside the largest are 0 but for rounding."""


def law_chart(law: LawView, label: str) -> Markup | None:
    """Measured over predicted, a dot per run, with the line where both are equal; None with fewer than two runs."""
    known = np.flatnonzero(np.isfinite(law.measured) & np.isfinite(law.predicted))
    if len(known) < 2:
        return None
    known = known[np.unique(np.linspace(0, len(known) - 1, min(RUNS, len(known))).round().astype(int))]
    measured, predicted = law.measured[known], law.predicted[known]
    low, high = float(min(measured.min(), predicted.min())), float(max(measured.max(), predicted.max()))
    room = 0.05 * (high - low) or 1.0
    with drawing():
        figure = blank(_SIDE_PX, _SIDE_PX * 0.86)
        axes = figure.add_axes((0.17, 0.16, 0.8, 0.81))
        axes.plot([low - room, high + room], [low - room, high + room], color=MUTED, linewidth=1, zorder=1)
        axes.scatter(predicted, measured, s=26, color=SERIES[0], edgecolors=PAPER, linewidths=0.6, alpha=0.85, zorder=2)
        axes.set(xlim=(low - room, high + room), ylim=(low - room, high + room), xlabel="predicted", ylabel="measured")
        _dress(axes)
        spoken = f"{len(measured)} runs between {numbers.number(low, 4)} and {numbers.number(high, 4)}"
        return inline(figure, label, f"Measured and predicted {clip(law.metric, 40)}", spoken)


def _dress(axes: "Axes") -> None:
    from matplotlib.ticker import MaxNLocator, ScalarFormatter

    axes.spines[["left", "right", "top", "bottom"]].set_visible(False)
    axes.grid(True, color=RULE, linewidth=1)
    axes.set_axisbelow(True)
    axes.tick_params(length=0)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(4))
        axis.set_major_formatter(ScalarFormatter(useOffset=False))


def marginal_chart(marginal: Mapping[str, float]) -> Markup | None:
    """A bar per source, the most wanted first: to the left, more of it lowers the objective."""
    least = SMALL * max(map(abs, marginal.values()), default=0.0)
    known = [(source, value if abs(value) > least else 0.0) for source, value in marginal.items()]
    rows = sorted(known, key=lambda row: (row[1], row[0]))
    if len(rows) < 2:
        return None
    half = SOURCES // 2
    rows = rows if len(rows) <= SOURCES else rows[:half] + rows[-half:]
    height = _ROW_PX * len(rows) + _AXIS_PX
    with drawing():
        figure = blank(_WIDTH_PX, height)
        axes = figure.add_axes((0.27, _AXIS_PX / height, 0.58, _ROW_PX * len(rows) / height))
        for place, (source, value) in zip(range(len(rows) - 1, -1, -1), rows, strict=True):
            beside = axes.get_yaxis_transform()
            axes.barh(place + 0.5, value, 0.55, color=SERIES[0] if value < 0 else SERIES[3], linewidth=0)
            axes.text(-0.03, place + 0.5, clip(source, 16), transform=beside, ha="right", va="center", color=INK)
            shown = numbers.signed(value, 2)
            axes.text(1.03, place + 0.5, shown, transform=beside, ha="left", va="center", color=INK)
        _dress_bars(axes, rows)
        spoken = "; ".join(f"{clip(source, 30)} {numbers.signed(value, 2)}" for source, value in rows)
        return inline(figure, "marginal", "What more of each source does to the objective", spoken)


def _dress_bars(axes: "Axes", rows: list[tuple[str, float]]) -> None:
    from matplotlib.ticker import MaxNLocator, ScalarFormatter

    reach = 1.08 * max(abs(value) for _, value in rows) or 1.0
    axes.set(xlim=(-reach, reach), ylim=(0, len(rows)), yticks=[], xlabel="← more of it helps")
    axes.axvline(0, color=MUTED, linewidth=1)
    axes.spines[["left", "right", "top", "bottom"]].set_visible(False)
    axes.xaxis.set_major_locator(MaxNLocator(5, prune="both"))
    axes.xaxis.set_major_formatter(ScalarFormatter(useOffset=False))
    axes.tick_params(length=3)

"""A histogram per score: one row per source on a shared axis, with the rule's cut and the share that passes it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from markupsafe import Markup

from pipeline.report import numbers
from pipeline.report.harmless import clip
from pipeline.report.svg import ACCENT, INK, MUTED, RULE, SERIES, SOFT, blank, drawing, inline
from pipeline.report.view import ScoreView, Threshold, finite

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Floats = npt.NDArray[np.float64]

_BINS = 44
_ROWS = 8
_WIDTH_PX, _ROW_PX, _TOP_PX, _AXIS_PX = 320, 32, 6, 22
_TAIL = 0.005
_STRETCH = 50.0
"""Positive values whose bulk spans more than this factor get a logarithmic axis."""


@dataclass(frozen=True)
class Histogram:
    """A drawn score with the sentence that helps to read it."""

    column: str
    meaning: str
    chart: Markup
    reading: str


def histogram(score: ScoreView, name: str) -> Histogram | None:
    """The chart of one score, called `name` in the page; None when no source has a number."""
    rows = _rows(score)
    everything = np.concatenate([values for _, values in rows]) if rows else np.zeros(0)
    if not len(everything):
        return None
    edges, stretched = bin_edges(everything, [line.value for line in score.thresholds])
    reading = _reading(score, everything, edges)
    with drawing():
        figure = _draw(score, rows, edges, stretched)
        by = "what became of it" if score.muted else "source"
        chart = inline(figure, name, f"Distribution of {clip(score.column, 60)} by {by}", reading)
    unit = f" [{score.unit}]"
    meaning = score.meaning or score.column
    meaning += unit if score.unit and not meaning.endswith(unit) else ""
    return Histogram(score.column, meaning, chart, reading)


def bin_edges(values: Floats, marks: Sequence[float]) -> tuple[Floats, bool]:
    """Edges that show the bulk and every mark, and whether the axis is logarithmic.

    Whole numbers over a short range get one bin each; the outermost 0.5 % on each side join the end bins.
    """
    low, high = (float(edge) for edge in np.quantile(values, (_TAIL, 1 - _TAIL)))
    low, high = min([low, *marks]), max([high, *marks])
    whole = bool(np.all(values == np.round(values)))
    if whole and high - low <= _BINS:
        return np.arange(np.floor(low) - 0.5, np.ceil(high) + 1), False
    if high <= low:
        return np.linspace(low - 0.5, low + 0.5, 4), False
    if low > 0 and high / low > _STRETCH:
        edges = np.geomspace(low / 1.2, high * 1.2, _BINS + 1)
        return np.unique(np.floor(edges) + 0.5) if whole else edges, True
    if whole:
        width = np.ceil((high - low) / _BINS)
        return np.arange(np.floor(low) - width - 0.5, high + 2 * width, width), False
    room = 0.03 * (high - low)
    return np.linspace(low - room, high + room, _BINS + 1), False


def passing(values: Floats, lines: Sequence[Threshold]) -> float:
    """The share of `values` on the kept side of every line."""
    kept = np.ones(len(values), bool)
    for line in lines:
        kept &= values >= line.value if line.keeps == "at_least" else values <= line.value
    return float(kept.mean()) if len(values) else 0.0


def _rows(score: ScoreView) -> list[tuple[str, Floats]]:
    """Sources with numbers, by name; beyond the eighth, the smallest ones share a last row."""
    found = {source: finite(values) for source, values in sorted(score.values.items())}
    found = {source: values for source, values in found.items() if len(values)}
    if len(found) <= _ROWS:
        return list(found.items())
    large = sorted(sorted(found, key=lambda source: (-len(found[source]), source))[: _ROWS - 1])
    small = [values for source, values in found.items() if source not in large]
    return [(source, found[source]) for source in large] + [(f"{len(small)} others", np.concatenate(small))]


def _draw(score: ScoreView, rows: list[tuple[str, Floats]], edges: Floats, stretched: bool) -> "Figure":
    height = _TOP_PX + _ROW_PX * len(rows) + _AXIS_PX
    figure = blank(_WIDTH_PX, height)
    axes = figure.add_axes((0.245, _AXIS_PX / height, 0.59, _ROW_PX * len(rows) / height))
    if stretched:
        axes.set_xscale("log")
    for place, (source, values) in zip(range(len(rows) - 1, -1, -1), rows, strict=True):
        lines = [line for line in score.thresholds if line.source in (None, source)]
        _draw_row(axes, place, (source, values), edges, lines, score.muted)
    _dress(axes, edges, len(rows), stretched)
    return figure


def _draw_row(
    axes: "Axes",
    place: int,
    row: tuple[str, Floats],
    edges: Floats,
    lines: Sequence[Threshold],
    muted: Sequence[str],
) -> None:
    """One source: its bars, muted where a rule drops, and what passes; or one fate and how many met it."""
    from matplotlib.patches import Rectangle

    source, values = row
    stretched = axes.get_xscale() == "log"
    counts, _ = np.histogram(np.clip(values, edges[0], edges[-1]), edges)
    density = counts / np.diff(np.log(edges) if stretched else edges)
    heights = place + 0.8 * density / density.max()
    start, stop = _kept_range(edges, lines)
    if lines:
        axes.stairs(heights, edges, baseline=place, fill=True, color=SOFT, linewidth=0)
    tone = SOFT if source in muted else SERIES[0]
    bars = axes.stairs(heights, edges, baseline=place, fill=True, color=tone, linewidth=0)
    bars.set_clip_path(Rectangle((start, place), max(stop - start, 0.0), 1, transform=axes.transData))
    for edge in (start, stop):
        if edges[0] < edge < edges[-1]:
            axes.plot([edge, edge], [place, place + 0.92], color=ACCENT, linewidth=1.5, solid_capstyle="butt")
    axes.axhline(place, color=RULE, linewidth=1)
    beside = axes.get_yaxis_transform()
    axes.text(-0.02, place + 0.3, clip(source, 14), transform=beside, ha="right", va="center", color=INK)
    judged = lines and not muted
    label = numbers.share(passing(values, lines)) if judged else numbers.compact(len(values))
    axes.text(1.02, place + 0.3, label, transform=beside, ha="left", va="center", color=INK if judged else MUTED)


def _kept_range(edges: Floats, lines: Sequence[Threshold]) -> tuple[float, float]:
    """Where the kept side begins and ends; with one bin per whole number a cut stands between two bars."""
    step = 0.5 if np.all(np.diff(edges) == 1) else 0.0
    lower = [line.value - step for line in lines if line.keeps == "at_least"]
    upper = [line.value + step for line in lines if line.keeps == "at_most"]
    return max([float(edges[0]), *lower]), min([float(edges[-1]), *upper])


def _dress(axes: "Axes", edges: Floats, rows: int, stretched: bool) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator, ScalarFormatter

    axes.set_xlim(edges[0], edges[-1])
    axes.set_ylim(0, rows)
    axes.set_yticks([])
    axes.spines[["left", "right", "top", "bottom"]].set_visible(False)
    axes.xaxis.set_major_locator(LogLocator(subs=_ticks_per_decade(edges)) if stretched else MaxNLocator(4))
    axes.xaxis.set_minor_locator(NullLocator())
    spelled = FuncFormatter(lambda value, _: numbers.number(value))
    axes.xaxis.set_major_formatter(spelled if stretched else ScalarFormatter(useOffset=False))
    axes.tick_params(length=3)


def _ticks_per_decade(edges: Floats) -> tuple[float, ...]:
    return (1.0, 3.0) if edges[-1] / edges[0] < 100 else (1.0,)


def _reading(score: ScoreView, everything: Floats, edges: Floats) -> str:
    """One sentence: the middle of the values, what is outside the axis, what is missing, where the cut is."""
    median = numbers.number(float(np.median(everything)))
    outside = int(((everything < edges[0]) | (everything > edges[-1])).sum())
    missing = sum(len(values) for values in score.values.values()) - len(everything)
    parts = [f"median {median} over {numbers.count(len(everything))} samples"]
    parts += _cuts(score.thresholds) if not score.muted else _borders(score.thresholds)
    parts += [f"{numbers.count(outside)} beyond the axis are in the end bars"] if outside else []
    parts += [f"{numbers.count(missing)} without a value"] if missing else []
    return "; ".join(parts)


def _borders(lines: Sequence[Threshold]) -> list[str]:
    """Where only so many pass: of rows with this value perhaps not all."""
    return [f"the last that was kept has {numbers.number(line.value)}" for line in lines]


def _cuts(lines: Sequence[Threshold]) -> list[str]:
    sides = {"at_least": "at least", "at_most": "at most"}
    shared = [f"kept: {sides[line.keeps]} {numbers.number(line.value)}" for line in lines if line.source is None]
    own = sorted(line.value for line in lines if line.source is not None)
    if own:
        shared.append(f"one cut per source, from {numbers.number(own[0])} to {numbers.number(own[-1])}")
    return shared

"""Training curves per arm and the paired differences between arms."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from markupsafe import Markup

from pipeline.report import numbers
from pipeline.report.harmless import clip
from pipeline.report.svg import INK, MUTED, RULE, SERIES, SOFT, TEXT_PX, blank, drawing, inline
from pipeline.report.view import ArmView, Curve, Difference, Metric

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Floats = npt.NDArray[np.float64]

_POINTS = 80
_WIDTH_PX, _CURVES_PX = 400, 250
_ROW_PX, _AXIS_PX = 40, 36


def curves_chart(arms: Sequence[ArmView]) -> Markup | None:
    """Training loss by step: the mean over seeds as a line, the range over seeds as a band; None without curves."""
    smooth = [(arm.name, *averaged(arm.curves)) for arm in arms if any(len(curve.steps) for curve in arm.curves)]
    if not smooth:
        return None
    with drawing():
        figure = blank(_WIDTH_PX, _CURVES_PX)
        axes = figure.add_axes((0.1, 38 / _CURVES_PX, 0.68, (_CURVES_PX - 48) / _CURVES_PX))
        for place, (_, steps, losses) in enumerate(smooth):
            colour = SERIES[place % len(SERIES)]
            axes.fill_between(steps, losses.min(axis=0), losses.max(axis=0), color=colour, alpha=0.18, linewidth=0)
            axes.plot(steps, losses.mean(axis=0), color=colour, linewidth=2)
        _dress_curves(axes, smooth)
        spoken = "; ".join(
            f"{clip(name, 30)} ends at {numbers.number(loss.mean(axis=0)[-1])}" for name, _, loss in smooth
        )
        return inline(figure, "training-curves", "Training loss by step", spoken)


def averaged(curves: Sequence[Curve]) -> tuple[Floats, Floats]:
    """(p,) steps and (seeds, p) losses, each the mean over one of p <= 80 equal windows of the shared steps."""
    drawn = [curve for curve in curves if len(curve.steps)]
    length = min(len(curve.steps) for curve in drawn)
    cuts = np.linspace(0, length, min(_POINTS, length) + 1).astype(int)
    widths = np.diff(cuts)
    steps = np.asarray(drawn[0].steps[:length], np.float64)
    losses = np.stack([np.asarray(curve.losses[:length], np.float64) for curve in drawn])
    return np.add.reduceat(steps, cuts[:-1]) / widths, np.add.reduceat(losses, cuts[:-1], axis=1) / widths


def _dress_curves(axes: "Axes", smooth: Sequence[tuple[str, Floats, Floats]]) -> None:
    from matplotlib.ticker import MaxNLocator, ScalarFormatter, StrMethodFormatter

    _plain(axes)
    settled = [losses[:, steps >= steps[-1] * 0.06].max() for _, steps, losses in smooth]
    low = min(losses.min() for _, _, losses in smooth)
    high = max(settled)
    axes.set_ylim(low - 0.04 * (high - low), high + 0.02 * (high - low) or 1.0)
    axes.set_xlim(0, max(steps[-1] for _, steps, _ in smooth))
    axes.yaxis.grid(True, color=RULE, linewidth=1)
    axes.set_axisbelow(True)
    axes.yaxis.set_major_locator(MaxNLocator(4))
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.yaxis.set_major_formatter(ScalarFormatter(useOffset=False))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel("step")
    _label_ends(axes, smooth)


def _label_ends(axes: "Axes", smooth: Sequence[tuple[str, Floats, Floats]]) -> None:
    """Each line's name at its end; names that would overlap move apart."""
    bottom, top = axes.get_ylim()
    gap = (top - bottom) * (TEXT_PX + 4) / (_CURVES_PX - 48)
    ends = [float(losses.mean(axis=0)[-1]) for _, _, losses in smooth]
    for place, level in enumerate(apart(ends, gap)):
        beside = axes.get_yaxis_transform()
        axes.plot(1.03, level, "s", markersize=6, color=SERIES[place % len(SERIES)], transform=beside, clip_on=False)
        axes.text(1.06, level, clip(smooth[place][0], 11), transform=beside, va="center", color=INK)


def apart(levels: Sequence[float], gap: float) -> list[float]:
    """The levels, moved as a block where needed until neighbours are at least `gap` apart; order is kept."""
    order = sorted(range(len(levels)), key=lambda place: (levels[place], place))
    moved = [levels[place] for place in order]
    for place in range(1, len(moved)):
        moved[place] = max(moved[place], moved[place - 1] + gap)
    shift = float(np.mean(moved) - np.mean(levels)) if moved else 0.0
    result = [0.0] * len(levels)
    for place, level in zip(order, moved, strict=True):
        result[place] = level - shift
    return result


def differences_chart(metric: Metric, differences: Sequence[Difference], label: str) -> Markup:
    """Mean and 95 % interval per pair of arms around zero, each seed as a dot; the chart is `label` in the page."""
    height = _ROW_PX * len(differences) + _AXIS_PX
    with drawing():
        figure = blank(_WIDTH_PX, height)
        axes = figure.add_axes((0.03, _AXIS_PX / height, 0.94, _ROW_PX * len(differences) / height))
        for place, difference in zip(range(len(differences) - 1, -1, -1), differences, strict=True):
            _draw_difference(axes, place + 0.36, difference)
        _dress_differences(axes, metric, differences)
        spoken = "; ".join(f"{name(item)}: {interval(item)}" for item in differences)
        return inline(figure, label, f"Paired differences in {clip(metric.label, 60)}", spoken)


def _draw_difference(axes: "Axes", level: float, item: Difference) -> None:
    colour = SERIES[0] if item.low > 0 or item.high < 0 else MUTED
    axes.plot([item.low, item.high], [level, level], color=colour, linewidth=2, solid_capstyle="butt")
    axes.plot([item.low, item.high], [level, level], "|", markersize=9, markeredgewidth=2, color=colour)
    axes.plot(item.per_seed, [level] * len(item.per_seed), "o", markersize=4, color=MUTED, alpha=0.6, markeredgewidth=0)
    axes.plot(item.mean, level, "D", markersize=7, color=colour)
    beside = axes.get_yaxis_transform()
    axes.text(0.015, level + 0.36, name(item), transform=beside, va="center", color=INK)
    axes.text(0.985, level + 0.36, interval(item), transform=beside, va="center", ha="right", color=INK)


def _dress_differences(axes: "Axes", metric: Metric, differences: Sequence[Difference]) -> None:
    from matplotlib.ticker import MaxNLocator, ScalarFormatter

    _plain(axes)
    reach = 1.12 * max(abs(value) for item in differences for value in (item.low, item.high, item.mean, *item.per_seed))
    axes.set_xlim(-(reach or 1.0), reach or 1.0)
    axes.set_ylim(0, len(differences))
    axes.set_yticks([])
    side = (-reach, 0) if metric.better == "lower" else (0, reach)
    axes.axvspan(*side, color=SOFT, alpha=0.45, linewidth=0, zorder=0)
    axes.axvline(0, color=MUTED, linewidth=1)
    axes.xaxis.set_major_locator(MaxNLocator(5, prune="both"))
    axes.xaxis.set_major_formatter(ScalarFormatter(useOffset=False))
    arrow = "← {} is better" if metric.better == "lower" else "{} is better →"
    axes.set_xlabel(arrow.format(metric.better))


def _plain(axes: "Axes") -> None:
    axes.spines[["left", "right", "top", "bottom"]].set_visible(False)
    axes.tick_params(length=3)


def name(item: Difference) -> str:
    """The pair, as a subtraction."""
    return f"{clip(item.left, 20)} {numbers.MINUS} {clip(item.right, 20)}"


def interval(item: Difference) -> str:
    """The mean with its interval."""
    mean, low, high = numbers.measured((item.mean, item.low, item.high), item.high - item.low, plus=True)
    return f"{mean} [{low}, {high}]"

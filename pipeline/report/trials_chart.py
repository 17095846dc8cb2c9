"""Pilot runs by mixture, coloured by what they reached: a triangle for three sources, parallel lines for others."""

from typing import TYPE_CHECKING

import numpy as np
from markupsafe import Markup

from pipeline.report import numbers
from pipeline.report.harmless import clip
from pipeline.report.svg import ACCENT, INK, MUTED, PAPER, RULE, SCALE, blank, drawing, inline
from pipeline.report.trials_view import TrialsView, Values

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_WIDTH_PX, _SIDE_PX, _HEIGHT_PX = 400, 350, 300
SOURCES = 12
"""Axes drawn: those whose shares vary most over the runs."""
RUNS = 120
"""Runs drawn: the best, the worst, and evenly between."""
HEIGHT = np.sqrt(3) / 2
CORNERS = np.array([[0.0, 0.0], [1.0, 0.0], [0.5, HEIGHT]])
MARKS = {"exported": ("*", 15, ACCENT), "natural": ("o", 7, INK)}


def trials_chart(view: TrialsView) -> Markup | None:
    """The runs that have a measured objective; None where there is none, or a single source."""
    known = np.flatnonzero(np.isfinite(view.objective))
    if not known.size or len(view.sources) < 2:
        return None
    order = known[np.argsort(-view.objective[known], kind="stable")]  # the best are drawn last, on top
    order = order[np.unique(np.linspace(0, len(order) - 1, min(RUNS, len(order))).round().astype(int))]
    shares, tones = view.shares[order], _tones(view.objective[order])
    with drawing():
        draw = _triangle if len(view.sources) == 3 else _parallel
        figure = blank(_WIDTH_PX, _SIDE_PX if draw is _triangle else _HEIGHT_PX)
        draw(figure.add_axes((0.0, 0.0, 1.0, 1.0)), view, shares, tones)
        return inline(figure, "trials", "Pilot runs by mixture and objective", _spoken(view))


def _tones(objective: Values) -> list[str]:
    """A colour per run, by the fifth of the runs it belongs to; the first colour is for the lowest objective."""
    ordered = np.sort(objective)
    ends = [np.searchsorted(ordered, objective, side="left"), np.searchsorted(ordered, objective, side="right")]
    ranks = (ends[0] + ends[1]) / (2 * len(objective))
    return [SCALE[int(rank * len(SCALE))] for rank in ranks]


def _triangle(axes: "Axes", view: TrialsView, shares: Values, tones: list[str]) -> None:
    axes.plot(*np.vstack([CORNERS, CORNERS[:1]]).T, color=MUTED, linewidth=1)
    for step in (0.25, 0.5, 0.75):
        for corner in range(3):
            ends = np.array([CORNERS[corner] * step + CORNERS[other] * (1 - step) for other in range(3)])
            axes.plot(*np.delete(ends, corner, axis=0).T, color=RULE, linewidth=1, zorder=0)
    points = shares @ CORNERS
    axes.scatter(points[:, 0], points[:, 1], s=46, c=tones, edgecolors=PAPER, linewidths=0.8, zorder=3)
    for name, mixture in _marked(view):
        mark, size, colour = MARKS[name]
        place = np.array(mixture) @ CORNERS
        face = PAPER if name == "natural" else colour
        axes.plot(*place, mark, markersize=size, color=face, markeredgecolor=colour, markeredgewidth=1.6, zorder=4)
    places = ((0.0, -0.03, "left", "top"), (1.0, -0.03, "right", "top"), (0.5, HEIGHT + 0.03, "center", "bottom"))
    for source, (x, y, across, up) in zip(view.sources, places, strict=True):
        axes.text(x, y, clip(source, 24), ha=across, va=up, color=INK)
    axes.set(xlim=(-0.04, 1.04), ylim=(-0.1, HEIGHT + 0.1), aspect="equal")
    axes.axis("off")


def _parallel(axes: "Axes", view: TrialsView, shares: Values, tones: list[str]) -> None:
    shown = np.sort(np.argsort(-shares.var(axis=0), kind="stable")[:SOURCES])
    levels = np.sqrt(shares[:, shown])  # small shares apart, as far as large ones
    places = [float(place) for place in range(len(shown))]
    for line, tone in zip(levels, tones, strict=True):
        axes.plot(places, line, color=tone, linewidth=1.1, alpha=0.75 if tone in (SCALE[0], SCALE[-1]) else 0.3)
    for name, mixture in _marked(view):
        mark, size, colour = MARKS[name]
        style = "-" if name == "exported" else (0, (2, 2))
        height = np.sqrt(np.array(mixture)[shown])
        axes.plot(places, height, linestyle=style, marker=mark, markersize=size * 0.55, color=colour, linewidth=2.2)
    top = float(max(levels.max(), *(np.sqrt(max(mixture)) for _, mixture in _marked(view)), 0.2))
    turned = len(shown) > 5
    for place, source in zip(places, shown, strict=True):
        axes.plot([place, place], [0, top], color=RULE, linewidth=1, zorder=0)
        label = axes.text(place, -0.05 * top, clip(view.sources[source], 11), color=INK, va="top", ha="center")
        if turned:
            label.set(rotation=50, rotation_mode="anchor", ha="right")
    for share in (0.0, 0.05, 0.2, 0.5, 1.0):
        if np.sqrt(share) <= 1.02 * top:
            axes.text(-0.03 * places[-1], np.sqrt(share), numbers.share(share), color=MUTED, ha="right", va="center")
    wide = places[-1] / 6
    axes.set(xlim=(-wide, places[-1] + 0.75 * wide), ylim=((-0.42 if turned else -0.14) * top, 1.05 * top))
    axes.axis("off")


def _marked(view: TrialsView) -> list[tuple[str, tuple[float, ...]]]:
    return [(name, view.proposed[name]) for name in ("natural", "exported") if name in view.proposed]


def _spoken(view: TrialsView) -> str:
    best = int(np.nanargmin(view.objective))
    parts = [
        f"{clip(name, 30)} {numbers.share(share)}" for name, share in zip(view.sources, view.shares[best], strict=True)
    ]
    return f"{len(view.objective)} runs; the best drew {', '.join(parts[:SOURCES])}"

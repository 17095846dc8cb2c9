"""Where each source's share went: pool, survivors, the mixer's ideal with its interval, what was exported."""

from typing import TYPE_CHECKING

from markupsafe import Markup

from pipeline.report import numbers
from pipeline.report.harmless import clip
from pipeline.report.svg import ACCENT, INK, MUTED, PAPER, RULE, SERIES, blank, drawing, inline
from pipeline.report.view import MixtureView, SourceShare

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_WIDTH_PX, _ROW_PX, _TOP_PX, _AXIS_PX = 400, 38, 6, 22
_ROWS = 24


def mixture_chart(mixture: MixtureView) -> Markup:
    """One row per source on a shared axis of shares; the largest 24 when there are more."""
    shares = sorted(mixture.shares, key=lambda share: (-share.realised, -share.ideal, share.source))[:_ROWS]
    height = _TOP_PX + _ROW_PX * len(shares) + _AXIS_PX
    with drawing():
        figure = blank(_WIDTH_PX, height)
        axes = figure.add_axes((0.235, _AXIS_PX / height, 0.63, _ROW_PX * len(shares) / height))
        for place, share in zip(range(len(shares) - 1, -1, -1), shares, strict=True):
            _draw_row(axes, place + 0.5, share)
        _dress(axes, shares)
        return inline(figure, "mixture-shares", "Shares of the sources", _spoken(shares))


def _draw_row(axes: "Axes", level: float, share: SourceShare) -> None:
    beside = axes.get_yaxis_transform()
    axes.axhline(level, color=RULE, linewidth=1, zorder=0)
    axes.plot([share.pool, share.realised], [level, level], color=SERIES[0], linewidth=1.5, alpha=0.45)
    if share.interval is not None:
        axes.plot(share.interval, [level, level], color=ACCENT, linewidth=6, alpha=0.3, solid_capstyle="butt")
    axes.plot(share.pool, level, "o", markersize=8, color=PAPER, markeredgecolor=MUTED, markeredgewidth=1.5)
    axes.plot(share.surviving, level, "o", markersize=4.5, color=MUTED)
    axes.plot(share.ideal, level, "D", markersize=6, color=ACCENT)
    axes.plot(share.realised, level, "o", markersize=9, color=SERIES[0], zorder=1.9)
    axes.text(-0.02, level, clip(share.source, 14), transform=beside, ha="right", va="center", color=INK)
    axes.text(1.03, level, numbers.share(share.realised), transform=beside, ha="left", va="center", color=INK)


def _dress(axes: "Axes", shares: list[SourceShare]) -> None:
    from matplotlib.ticker import MaxNLocator, PercentFormatter

    widest = max([max(s.pool, s.surviving, s.ideal, s.realised, *(s.interval or ())) for s in shares], default=1.0)
    axes.set_xlim(-0.015 * widest, min(1.0, 1.05 * widest) * 1.015)
    axes.set_ylim(0, max(1, len(shares)))
    axes.set_yticks([])
    axes.spines[["left", "right", "top", "bottom"]].set_visible(False)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.xaxis.set_major_formatter(PercentFormatter(1, symbol=" %"))
    axes.tick_params(length=3)


def _spoken(shares: list[SourceShare]) -> str:
    rows = [
        f"{clip(s.source, 30)}: pool {numbers.share(s.pool)}, surviving {numbers.share(s.surviving)}, "
        f"ideal {numbers.share(s.ideal)}, exported {numbers.share(s.realised)}"
        for s in shares
    ]
    return "; ".join(rows)

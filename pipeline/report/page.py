"""One run's report: a single HTML file that opens offline, asks the network for nothing and runs no script."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from pipeline.report import numbers, summary
from pipeline.report.comparison_chart import measure_chart, verdict
from pipeline.report.harmless import clip, finalize
from pipeline.report.histograms import Histogram, histogram
from pipeline.report.law_charts import law_chart, marginal_chart
from pipeline.report.mixture_chart import mixture_chart
from pipeline.report.names import names_table
from pipeline.report.thumbnails import Thumbnail, thumbnail
from pipeline.report.training_charts import curves_chart, differences_chart
from pipeline.report.trials_chart import SOURCES, trials_chart
from pipeline.report.trials_view import TrialsView
from pipeline.report.verdicts import VerdictTable, verdict_table
from pipeline.report.view import (
    DISTANCE,
    Card,
    ComparisonView,
    ContestView,
    Difference,
    DuplicateGroup,
    GalleryGroup,
    Metric,
    MixtureView,
    ReportView,
    SelectorView,
    TrainingView,
)

HERE = Path(__file__).parent
CARDS, CARDS_PER_GROUP, GROUPS = 240, 16, 40
"""Pictures in the gallery: in all, in one group at most, and the number of groups shown."""
DUPLICATE_GROUPS, DUPLICATES_PER_GROUP = 16, 3
SOURCE_TONES = 7
"""Colours in the style sheet; more sources begin again."""


@dataclass(frozen=True)
class Shown:
    """A card with its picture."""

    card: Card
    picture: Thumbnail


def write_report(view: ReportView | ContestView, path: Path) -> None:
    """Write the report to `path`: the same view gives the same bytes; the file appears whole or not at all.

    Raises:
        OSError: the folder cannot be written.
    """
    page = render(view)
    unfinished = path.with_name(path.name + ".unfinished")
    unfinished.write_text(page, encoding="utf-8", newline="\n")
    unfinished.replace(path)


def render(view: ReportView | ContestView) -> str:
    """The report as a string of HTML; see `ReportView` for what stands where."""
    return _filled(view, _derived(view) if isinstance(view, ReportView) else _of_contest(view))


def _filled(view: ReportView | ContestView, derived: dict[str, Any]) -> str:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    pages = Environment(
        loader=FileSystemLoader(HERE),
        autoescape=True,
        finalize=finalize,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    pages.filters.update(
        count=numbers.count, share=numbers.share, number=numbers.number, signed=numbers.signed,
        seconds=numbers.seconds, size=numbers.size, plain=numbers.plain, clip=clip,
    )  # fmt: skip
    style = Markup((HERE / "page.css").read_text("utf-8"))
    return pages.get_template("page.html").render(view=view, style=style, **derived)


def _derived(view: ReportView) -> dict[str, Any]:
    return {
        "tiles": summary.tiles(view),
        "verdict_bar": summary.verdict_bar(view),
        "funnel": summary.funnel_rows(view),
        "verdicts": verdict_table(view),
        "histograms": _histograms(view),
        "names": [names_table(column) for column in view.names],
        "rankings": _rankings(view),
        "gallery": _gallery(view.gallery),
        "duplicates": _duplicates(view.duplicates),
        "mixture": _mixture(view.mixture),
        "trials": _trials(view.trials),
        "training": _training(view.training),
        "comparison": _comparison(view.comparison),
        "slowest": max([stage.seconds for stage in view.stages], default=0.0) or 1.0,
    }


def _of_contest(view: ContestView) -> dict[str, Any]:
    """A page without a pool."""
    names = ("verdict_bar", "funnel", "histograms", "names", "rankings", "gallery", "duplicates", "mixture", "trials")
    return {
        **dict.fromkeys((*names, "comparison"), ()),
        "verdicts": VerdictTable((), (), ()),
        "tiles": summary.contest_tiles(view),
        "training": _training(view.training),
        "slowest": 1.0,
    }


def _histograms(view: ReportView) -> list[Histogram]:
    drawn = [histogram(score, f"histogram-{place}") for place, score in enumerate(view.scores)]
    return [chart for chart in drawn if chart is not None]


def _rankings(view: ReportView) -> list[tuple[str, Histogram]]:
    drawn = [(item.step, histogram(item.score, f"ranking-{place}")) for place, item in enumerate(view.rankings)]
    return [(step, chart) for step, chart in drawn if chart is not None]


def _gallery(groups: Sequence[GalleryGroup]) -> list[tuple[GalleryGroup, list[Shown]]]:
    """The first groups, each with as many cards as an equal part of the budget allows."""
    shown = groups[:GROUPS]
    each = min(CARDS_PER_GROUP, CARDS // max(1, len(shown)))
    return [(group, [_shown(card) for card in group.cards[:each]]) for group in shown]


def _duplicates(groups: Sequence[DuplicateGroup]) -> list[tuple[DuplicateGroup, Shown, list[Shown]]]:
    """The first groups, as many of each step, so that no step hides another's."""
    steps = dict.fromkeys(group.decided_by for group in groups)
    each = max(1, DUPLICATE_GROUPS // max(1, len(steps)))
    shown = [group for step in steps for group in [found for found in groups if found.decided_by == step][:each]]
    return [
        (group, _shown(group.survivor), [_shown(card) for card in group.others[:DUPLICATES_PER_GROUP]])
        for group in shown[:DUPLICATE_GROUPS]
    ]


def _shown(card: Card) -> Shown:
    return Shown(card, thumbnail(card.image))


def _mixture(mixture: MixtureView | None) -> dict[str, Any]:
    if mixture is None:
        return {}
    return {
        "chart": mixture_chart(mixture),
        "distances": summary.distances(mixture),
        "is_distance": mixture.objective_name == DISTANCE,
    }


def _trials(trials: TrialsView | None) -> dict[str, Any]:
    if trials is None:
        return {}
    charts = [(law, law_chart(law, f"law-{place}")) for place, law in enumerate(trials.laws)]
    return {
        "chart": trials_chart(trials),
        "hidden": max(0, len(trials.sources) - SOURCES),
        "marginal": marginal_chart(trials.marginal),
        "laws": [(law, chart) for law, chart in charts if chart is not None],
    }


def _training(training: TrainingView | None) -> dict[str, Any]:
    if training is None:
        return {}
    named = {metric.name: metric for metric in training.metrics}
    metrics = [*named.values(), *(Metric(name, name) for name in _measured(training) if name not in named)]
    return {
        "curves": curves_chart(training.arms),
        "differences": _differences(metrics, training.differences, "difference"),
        "metrics": metrics,
        "captions": [(shown, thumbnail(shown.image)) for shown in training.captions],
        "costs": any(arm.cost for arm in training.arms),
        "money": any(arm.cost and arm.cost.money for arm in training.arms),
        "rows": [(arm, [_spread(arm.metrics.get(metric.name, ())) for metric in metrics]) for arm in training.arms],
    }


def _differences(metrics: Sequence[Metric], items: Sequence[Difference], label: str) -> list[tuple[Metric, Markup]]:
    pairs = {metric: [item for item in items if item.metric == metric.name] for metric in metrics}
    return [
        (metric, differences_chart(metric, of_metric, f"{label}-{place}"))
        for place, (metric, of_metric) in enumerate(pairs.items())
        if of_metric
    ]


def _comparison(view: ComparisonView | None) -> dict[str, Any]:
    if view is None:
        return {}
    charts = [(m, measure_chart(view, m, f"measure-{place}")) for place, m in enumerate(view.measures)]
    rows = (view.everything, *view.selectors)
    columns = [m for m in view.measures if any(m.name in row.values for row in rows)]
    tones = {name: f"s{place % SOURCE_TONES + 1}" for place, name in enumerate(sorted(view.everything.sources))}
    return {
        "charts": [(measure, chart) for measure, chart in charts if chart is not None],
        "differences": _differences(view.trained, view.differences, "choice"),
        "columns": columns,
        "trained": view.trained,
        "rows": [
            (row, [_cell(row, m) for m in columns], [_spread(row.trained.get(m.name, ())) for m in view.trained])
            for row in rows
        ],
        "sources": list(tones.items()),
        "shares": [(row, [(name, tone, row.sources.get(name, 0.0)) for name, tone in tones.items()]) for row in rows],
        "overlap": [(name, list(row.items())) for name, row in view.overlap.items()],
    }


def _cell(row: SelectorView, measure: Metric) -> tuple[str, str]:
    if measure.name not in row.values:
        return numbers.NONE, ""
    return numbers.number(row.values[measure.name], 4), verdict(row, measure)


def _measured(training: TrainingView) -> list[str]:
    """Names of the metrics that arms or differences carry, sorted."""
    return sorted(
        {item.metric for item in training.differences} | {name for arm in training.arms for name in arm.metrics}
    )


def _spread(values: Sequence[float]) -> str:
    """Mean over seeds, and the standard deviation where there are two or more."""
    if not values:
        return numbers.NONE
    mean = sum(values) / len(values)
    if len(values) == 1:
        return numbers.number(mean)
    deviation = (sum((value - mean) ** 2 for value in values) / (len(values) - 1)) ** 0.5
    return " ± ".join(numbers.measured((mean, deviation), deviation))

"""What the page derives from a view: the tiles on top, the funnel's bars, the table of verdicts."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from pipeline.report import numbers
from pipeline.report.harmless import clip
from pipeline.report.view import (
    DISTANCE,
    Check,
    ContestView,
    Difference,
    Metric,
    MixtureView,
    ReportView,
    StatusCount,
    Step,
    TrainingView,
)
from schemas.tables import DROPPED, KEPT, QUARANTINED, STATUSES

_REASONS = 6


@dataclass(frozen=True)
class Tile:
    """One number of the summary; `tone` is good, bad or empty."""

    label: str
    value: str
    detail: str
    tone: str = ""


@dataclass(frozen=True)
class Segment:
    """A part of a bar, `percent` wide; `tone` is kept, dropped or quarantined."""

    label: str
    count: int
    percent: float
    tone: str


@dataclass(frozen=True)
class FunnelRow:
    """One step with its bar and what its numbers leave open."""

    step: Step
    segments: tuple[Segment, ...]
    reasons: tuple[tuple[str, int], ...]
    unaccounted: int


def totals(view: ReportView) -> dict[str, int]:
    """Samples per status."""
    found = dict.fromkeys(STATUSES, 0)
    for line in view.status_counts:
        found[line.status] = found.get(line.status, 0) + line.count
    return found


def tiles(view: ReportView) -> list[Tile]:
    """The summary, from the pool to the proof; what a run did not do has no tile."""
    by_status = totals(view)
    heaviest = _heaviest(line for line in view.status_counts if line.status == DROPPED)
    sources = len({line.source for line in view.status_counts})
    found = [
        Tile("in the pool", numbers.count(view.counted), f"{sources} source{'s' * (sources != 1)}"),
        Tile("kept", numbers.count(by_status[KEPT]), numbers.share(by_status[KEPT], view.counted) + " of the pool"),
        Tile("dropped", numbers.count(by_status[DROPPED]), f"most: {heaviest}" if heaviest else "by no rule"),
        Tile("quarantined", numbers.count(by_status[QUARANTINED]), "unreadable or not scorable"),
        _conservation(view.counted, sum(by_status.values())),
    ]
    if view.exported is not None:
        found.append(
            Tile("exported", numbers.count(view.exported), f"{numbers.count(by_status[KEPT])} distinct samples")
        )
    if (compared := view.comparison) is not None:
        found.append(Tile("selectors", numbers.count(len(compared.selectors)), f"side by side at {compared.budget}"))
    if view.mixture is not None:
        found.append(_distance(view.mixture))
    if view.training is not None and view.training.differences:
        found.append(_gain(view.training, view.training.differences[0]))
    if any(check.passed is not None for check in view.checks):
        found.append(_checked(view.checks))
    return found


def contest_tiles(view: ContestView) -> list[Tile]:
    """Of a contest: how many selections, and the first difference of each from the one they are held against."""
    training = view.training
    first = [item for item in training.differences if item.metric == training.differences[0].metric]
    arms = numbers.count(len(training.arms))
    return [
        Tile("selections", arms, f"trained {training.facts['seeds']} times each"),
        *(_gain(training, i) for i in first),
    ]


def verdict_bar(view: ReportView) -> list[Segment]:
    """Kept, dropped and quarantined as parts of the whole."""
    by_status = totals(view)
    whole = max(1, sum(by_status.values()))
    return [Segment(name, count, 100 * count / whole, name) for name, count in by_status.items() if count]


def funnel_rows(view: ReportView) -> list[FunnelRow]:
    """The steps with bars on one scale: the pool is the full width."""
    scale = max([1, view.counted, *(step.n_in for step in view.funnel)])
    return [_funnel_row(step, scale) for step in view.funnel]


def distances(mixture: MixtureView) -> list[tuple[str, float, float]]:
    """(name, objective, percent of the widest bar): the references and the exported mixture, best first.

    Bars of a distance begin at 0, those of another objective a little below its best.
    """
    values = {**mixture.references, "exported": mixture.objective}
    ordered = sorted(values.items(), key=lambda item: (item[1], item[0]))
    best, worst = ordered[0][1], ordered[-1][1]
    begin = 0.0 if mixture.objective_name == DISTANCE else best - 0.08 * (worst - best)
    whole = (worst - begin) or 1.0
    return [(name, value, 100 * (value - begin) / whole) for name, value in ordered]


def verdict(difference: Difference, metric: Metric | None) -> str:
    """good, bad or empty: whether the interval excludes zero, and on which side."""
    if difference.low <= 0 <= difference.high:
        return ""
    lower = metric is None or metric.better == "lower"
    return "good" if (difference.high < 0) == lower else "bad"


def metric_of(training: TrainingView, name: str) -> Metric | None:
    """The metric of that name; None when the view does not describe it."""
    return next((metric for metric in training.metrics if metric.name == name), None)


def _conservation(counted: int, accounted: int) -> Tile:
    if counted == accounted:
        return Tile("conservation", "holds", "in = kept + dropped + quarantined", "good")
    detail = f"{numbers.count(counted)} in, {numbers.count(accounted)} accounted for"
    return Tile("conservation", "broken", detail, "bad")


def _checked(checks: Iterable[Check]) -> Tile:
    judged = [check for check in checks if check.passed is not None]
    failed = [check.name for check in judged if not check.passed]
    value = f"{len(judged) - len(failed)} of {len(judged)}"
    return Tile("checks passed", value, f"failed: {', '.join(failed)}" if failed else "", "bad" if failed else "good")


def _distance(mixture: MixtureView) -> Tile:
    natural = mixture.references.get("natural")
    detail, is_distance = mixture.objective_name, mixture.objective_name == DISTANCE
    if natural is not None and not is_distance:
        detail = f"{numbers.signed(mixture.objective - natural, 2)} against the natural mixture"
    elif natural:
        change = 100 * (mixture.objective / natural - 1)
        detail = f"{numbers.signed(round(change, 1))} % against the natural mixture"
    better = natural is not None and mixture.objective < natural
    label = "target distance" if is_distance else clip(mixture.objective_name, 32)
    return Tile(label, numbers.number(mixture.objective), detail, "good" if better else "")


def _gain(training: TrainingView, first: Difference) -> Tile:
    metric = metric_of(training, first.metric)
    tone = verdict(first, metric)
    label = metric.label if metric else first.metric
    found = {"good": "better: the interval excludes 0", "bad": "worse: the interval excludes 0"}
    outcome = found.get(tone, "no gain claimed: the interval holds 0")
    mean, low, high = numbers.measured((first.mean, first.low, first.high), first.high - first.low, plus=True)
    detail = f"{label}, [{low}, {high}]; {outcome}"
    return Tile(f"{first.left} {numbers.MINUS} {first.right}", mean, detail, tone)


def _heaviest(lines: Iterable[StatusCount]) -> str:
    found: Counter[str] = Counter()
    for line in lines:
        found[line.reason or ""] += line.count
    return max(sorted(found), key=lambda reason: found[reason], default="")


def _funnel_row(step: Step, scale: int) -> FunnelRow:
    reasons = sorted(step.dropped.items(), key=lambda item: (-item[1], item[0]))
    segments = [Segment("kept", step.n_kept, 100 * step.n_kept / scale, KEPT)]
    segments += [Segment(name, count, 100 * count / scale, step.status) for name, count in reasons if count]
    return FunnelRow(step, tuple(segments), _folded(reasons), step.n_in - step.n_kept - sum(step.dropped.values()))


def _folded(reasons: list[tuple[str, int]]) -> tuple[tuple[str, int], ...]:
    found = [(name, count) for name, count in reasons if count]
    if len(found) <= _REASONS:
        return tuple(found)
    rest = found[_REASONS - 1 :]
    return (*found[: _REASONS - 1], (f"{len(rest)} more reasons", sum(count for _, count in rest)))

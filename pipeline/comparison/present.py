"""A comparison as the report shows it."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pipeline.report import numbers
from pipeline.report.view import Check, ComparisonView, Difference, Metric, SelectorView

MEASURES = (
    Metric("kl", "KL to the target", "lower", "Caption n-grams: KL(target || choice) in nats."),
    Metric("distance", "distance to the target", "lower", "Image embeddings: squared 2-Wasserstein distance, 0 to 4."),
    Metric("diversity", "diversity", "higher", "Vendi score: how many different images the choice is worth."),
    Metric("mean_tokens", "tokens per caption", "", "Words and signs; a choice may only be one of longer captions."),
)
TOLD = ("column", "scores", "mode")
"""Settings that tell selectors of one kind apart at a glance; compare.json has all."""
YARDSTICKS = {
    "held_out": "Measured on {} samples of the target that no selector saw.",
    "seen": "Measured on the {} samples of the target that selectors saw too.",
}


def comparison_view(facts: Mapping[str, Any], metrics: Sequence[Metric]) -> ComparisonView:
    """What stands in compare.json, for the page; `metrics` are those of the training."""
    training, names = facts["training"], list(facts["selectors"])
    budget = ", ".join(f"{numbers.plain(amount)} {name}" for name, amount in facts["budget"].items())
    yardstick = next(iter(facts["measured_on"].items()), None)
    ends = facts["random"]["intervals"]
    return ComparisonView(
        budget=budget,
        survivors=facts["survivors"],
        everything=_row("all", facts["pool"]),
        selectors=tuple(_selector(name, line, training) for name, line in facts["selectors"].items()),
        measures=MEASURES,
        intervals={name: (found["low"], found["high"]) for name, found in ends.items()},
        overlap={one: {other: facts["overlap"][one][other] for other in names} for one in names},
        chance_overlap=facts["random"]["overlap"],
        measured_on=YARDSTICKS[yardstick[0]].format(numbers.count(yardstick[1])) if yardstick else "",
        trained=tuple(metric for metric in metrics if training and _has(training, metric)),
        differences=tuple(_differences(training)),
    )


def _row(name: str, line: Mapping[str, Any], **more: Any) -> SelectorView:
    values = {measure.name: line[measure.name] for measure in MEASURES if line.get(measure.name) is not None}
    return SelectorView(name, line["kept"], values, line["sources"], **more)


def _selector(name: str, line: Mapping[str, Any], training: Mapping[str, Any] | None) -> SelectorView:
    runs = training["arms"][name]["runs"] if training else []
    trained = {metric: tuple(run["metrics"][metric] for run in runs) for metric in (runs[0]["metrics"] if runs else ())}
    told = {key: line["settings"][key] for key in TOLD if key in line["settings"]}
    detail = ", ".join([line["kind"], *(f"{key} {numbers.plain(value)}" for key, value in told.items())])
    against = {**line["against_random"]}
    detail = "" if detail == name else detail
    spent = {"seconds": line["seconds"], "reused": line["reused"]}
    return _row(name, line, against_random=against, trained=trained, detail=detail, **spent)


def _has(training: Mapping[str, Any], metric: Metric) -> bool:
    return any(metric.name in arm["mean"] for arm in training["arms"].values())


def _differences(training: Mapping[str, Any] | None) -> Iterable[Difference]:
    for line in training["differences"] if training else ():
        ends = (line["mean"], line["low"], line["high"], tuple(line["per_seed"]))
        yield Difference(line["metric"], line["left"], line["right"], *ends)


def choices_accounted_for(facts: Mapping[str, Any] | None) -> Iterable[Check]:
    """Of each selector, that it kept or named a reason for every row that it was given."""
    if facts is None:
        return
    n = facts["survivors"]
    sums = {name: line["kept"] + sum(line["not_kept"].values()) for name, line in facts["selectors"].items()}
    wrong = [name for name, total in sums.items() if total != n]
    value = f"{len(sums) - len(wrong)} of {len(sums)} selectors" + (f"; not by {', '.join(wrong)}" if wrong else "")
    yield Check("every choice accounted for", value, f"kept + not kept = {numbers.count(n)}", not wrong)

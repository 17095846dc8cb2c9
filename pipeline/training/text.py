"""What `cuvee train --compare` prints."""

import io
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

METRICS = {"nll_per_token": "NLL", "token_edit_distance": "edit distance", "visual_use_gap": "visual use"}


def contest_text(told: Mapping[str, Any]) -> str:
    """A contest as tables for a terminal; `told` is what stands in contest.json, and where the report is."""
    text = io.StringIO()
    console = Console(file=text, width=130, highlight=False)
    training = told["training"]
    runs = training["settings"]["seeds"]
    console.print(
        f"{len(told['selections'])} selections, {runs} seeds each, {training['samples_per_run']} samples a training; "
        f"judged by recipe {told['judge']['recipe']} on {training['evaluation']['pairs']} held-out pairs"
    )
    console.print(_selections(told))
    console.print(_differences(training))
    console.print("curation: worker seconds of scores, seconds of rules and mixture; shared: common scores split")
    for note in told["notes"]:
        console.print(f"note: {note}")
    console.print(f"report  {told['report']}", soft_wrap=True)
    return text.getvalue().rstrip()


def _selections(told: Mapping[str, Any]) -> Table:
    arms = told["training"]["arms"]
    metrics = [name for name in METRICS if any(name in arm["mean"] for arm in arms.values())]
    paid = any(line["cost"] and line["cost"]["alone"]["money"] for line in told["selections"].values())
    names = [METRICS[name] for name in metrics]
    head = ["selection", "samples", *names, "curation s, alone", "shared", *(["spent"] if paid else [])]
    table = Table(*head, box=None)
    for name, line in told["selections"].items():
        values = [f"{arms[name]['mean'][metric]:.4f}" for metric in metrics]
        table.add_row(name, str(arms[name]["samples"]), *values, *_cost(line["cost"], paid))
    return table


def _cost(cost: Mapping[str, Any] | None, paid: bool) -> list[str]:
    if cost is None:
        return ["not known", "", *([""] if paid else [])]
    least = "" if cost["whole"] else ">= "
    seconds = [f"{least}{cost[way]['seconds']:.1f}" for way in ("alone", "shared")]
    return [*seconds, *([f"{cost['alone']['money']:.6g}"] if paid else [])]


def _differences(training: Mapping[str, Any]) -> Table:
    table = Table("difference", "metric", "mean", "95 % interval", box=None)
    for line in training["differences"]:
        pair = f"{line['left']} - {line['right']}"
        ends = f"[{line['low']:+.4f}, {line['high']:+.4f}]"
        table.add_row(pair, METRICS.get(line["metric"], line["metric"]), f"{line['mean']:+.4f}", ends)
    return table

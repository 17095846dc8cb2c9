"""What `cuvee run` prints when it is done."""

import io

from rich.console import Console
from rich.table import Table

from pipeline.run import Outcome


def summary_text(outcome: Outcome) -> str:
    """The run as a few tables for a terminal."""
    console = Console(file=io.StringIO(), width=110, highlight=False)
    record = outcome.record
    counts = ", ".join(f"{count} {status}" for status, count in record["samples"].items() if status != "in")
    console.print(f"{outcome.resolved.recipe.name}: {record['samples']['in']} samples in = {counts}")
    console.print(_stages(outcome))
    if record["steps"]:
        console.print(_steps(outcome))
    if record["shares"]:
        console.print(_shares(outcome))
    if record["training"]:
        console.print(_training(outcome))
    for check in record.get("checks", []):
        verdict = {True: "ok", False: "MISSED", None: ""}[check["passed"]]
        console.print(f"  {check['name']}: {check['value']}  ({check['bar']}) {verdict}")
    for note in record["notes"]:
        console.print(f"note: {note}")
    if record["export"]:
        console.print(f"export  {record['export']['folder']} ({record['export']['samples']} samples)")
    if facts := record["continual"]:
        counts, share = facts["samples"], facts["replay"]["share"]
        console.print(
            f"to go on from run {facts['since']['run']}: {counts['new']} new samples, {facts['epochs']} epochs with "
            f"{share:.0%} replay of {counts['kept']}; {outcome.folder / 'continual.json'}",
            soft_wrap=True,
        )
    console.print(f"report  {outcome.folder / 'report.html'}", soft_wrap=True)
    text = console.file
    assert isinstance(text, io.StringIO)
    return text.getvalue().rstrip()


def _stages(outcome: Outcome) -> Table:
    table = Table("stage", "computed", "reused", "samples", "worker s", "samples/s", box=None, title_justify="left")
    for line in outcome.record["stages"]:
        rate = f"{line['samples_per_s']:.0f}" if line["samples_per_s"] else ""
        table.add_row(
            line["kind"],
            str(line["computed"]),
            str(line["reused"]),
            str(line["samples"]),
            f"{line['seconds']:.1f}",
            rate,
        )
    return table


def _steps(outcome: Outcome) -> Table:
    table = Table("rule", "in", "kept", "dropped", box=None)
    for line in outcome.record["steps"]:
        reasons = ", ".join(f"{count} {reason}" for reason, count in line["dropped"].items())
        table.add_row(line["name"], str(line["in"]), str(line["kept"]), reasons or "none")
    return table


def _shares(outcome: Outcome) -> Table:
    shares = outcome.record["shares"]
    names = [
        name for name in ("pool", "surviving", "ideal", "capped", "realised") if name in next(iter(shares.values()))
    ]
    table = Table("source", *names, box=None)
    for source, parts in shares.items():
        table.add_row(source, *(f"{parts[name]:.3f}" for name in names))
    return table


def _training(outcome: Outcome) -> Table:
    table = Table("training", "difference", "95 % interval", box=None)
    for line in outcome.record["training"]["differences"]:
        interval = "one seed" if line["low"] is None else f"[{line['low']:+.4f}, {line['high']:+.4f}]"
        table.add_row(f"{line['left']} - {line['right']}, {line['metric']}", f"{line['mean']:+.4f}", interval)
    return table

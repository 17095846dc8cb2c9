"""What `cuvee compare` prints."""

import io
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

MEASURES = {
    "kl": ("KL to target", ".4f"),
    "distance": ("distance", ".4f"),
    "mean_tokens": ("tokens", ".2f"),
    "length_shift": ("shift", "+.2f"),
    "diversity": ("diversity", ".2f"),
}
"""Name in compare.json -> heading and format."""
NLL = "nll_per_token"
OUTSIDE = "*"


def comparison_text(facts: Mapping[str, Any]) -> str:
    """A comparison as tables for a terminal.

    Args:
        facts: what stands in compare.json, and where that and the report are.
    """
    text = io.StringIO()
    console = Console(file=text, width=130, highlight=False)
    budget = ", ".join(f"{amount} {name}" for name, amount in facts["budget"].items())
    console.print(f"{facts['recipe']}: {len(facts['selectors'])} selectors at {budget} of {facts['survivors']} samples")
    for table in (_measures(facts), _shares(facts), _overlap(facts)):
        console.print(table)
    low, high = (round(100 * side) for side in (facts["random"]["level"], facts["random"]["overlap"]))
    console.print(f"{OUTSIDE} outside of where {low} % of random draws lie ({facts['random']['draws']} were made)")
    console.print(f"two random draws overlap by {high / 100:.2f}; measured on {_yardstick(facts)}")
    if any(line["reused"] and line["seconds"] is not None for line in facts["selectors"].values()):
        console.print("seconds in brackets were spent earlier, on a choice that this run used again")
    for note in facts["notes"]:
        console.print(f"note: {note}")
    console.print(f"report  {facts['report']}", soft_wrap=True)
    return text.getvalue().rstrip()


def _yardstick(facts: Mapping[str, Any]) -> str:
    named = {"held_out": "held-out samples of the target", "seen": "samples of the target that selectors saw"}
    found = [f"{count} {named[name]}" for name, count in facts["measured_on"].items()]
    return found[0] if found else "no target"


def _measures(facts: Mapping[str, Any]) -> Table:
    names = [name for name in MEASURES if name in facts["pool"]]
    trained = facts["training"]
    columns = [MEASURES[name][0] for name in names] + (["NLL", f"against {facts['chance']}"] if trained else [])
    table = Table("selector", "kept", *columns, "seconds", box=None)
    table.add_row("(all)", str(facts["pool"]["kept"]), *(format(facts["pool"][n], MEASURES[n][1]) for n in names))
    for selector, line in facts["selectors"].items():
        values = [_value(line, name) for name in names] + (_gain(trained, selector) if trained else [])
        table.add_row(selector, str(line["kept"]), *values, _seconds(line))
    return table


def _seconds(line: Mapping[str, Any]) -> str:
    """What choosing took; in brackets where the choice was there before."""
    if line["seconds"] is None:
        return "-"
    return f"({line['seconds']:.2f})" if line["reused"] else f"{line['seconds']:.2f}"


def _value(line: Mapping[str, Any], name: str) -> str:
    mark = "" if line["against_random"].get(name) in (None, "within") else OUTSIDE
    return "-" if line[name] is None else format(line[name], MEASURES[name][1]) + mark


def _gain(training: Mapping[str, Any], selector: str) -> list[str]:
    mean = f"{training['arms'][selector]['mean'][NLL]:.4f}"
    found = [d for d in training["differences"] if d["metric"] == NLL and d["left"] == selector]
    return [mean, *(f"{d['mean']:+.4f} [{d['low']:+.4f}, {d['high']:+.4f}]" for d in found)]


def _shares(facts: Mapping[str, Any]) -> Table:
    sources = sorted(facts["pool"]["sources"])
    table = Table("shares", *sources, box=None)
    for name, line in {"(all)": facts["pool"], **facts["selectors"]}.items():
        table.add_row(name, *(f"{line['sources'].get(source, 0.0):.3f}" for source in sources))
    return table


def _overlap(facts: Mapping[str, Any]) -> Table:
    """The upper names are numbers: a dozen of them would not fit."""
    names = list(facts["selectors"])
    table = Table("overlap", *(str(number) for number in range(1, len(names) + 1)), box=None)
    for number, name in enumerate(names, 1):
        table.add_row(f"{number} {name}", *(f"{facts['overlap'][name][other]:.2f}" for other in names))
    return table

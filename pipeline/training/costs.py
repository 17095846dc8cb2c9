"""What a selection cost: worker seconds of its scores, seconds of its rules and mixture, money of its requests.

Two figures, for selection is not free (arXiv:2307.06440 finds that it rarely pays once it is counted). `alone`: what
this selection takes by itself, from nothing. `shared`: scores and requests that several of the compared selections use
are split evenly among them. Everything is measured: what a run reused is looked up in the run of the same workspace
that computed it; where none is left that did, the figure is a lower bound and says so.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.sidecars import read_json
from pipeline.training.contestants import RECORD, Contestant

PARTS = ("scoring", "selection", "mixing")
INDEX = "index"


@dataclass(frozen=True)
class Item:
    """One thing that was paid for."""

    part: str
    key: tuple[Any, ...]
    """Selections with an equal key share it."""
    seconds: float = 0.0
    money: float = 0.0
    whole: bool = True
    """Whether all of it was measured."""


def costs(found: Sequence[Contestant]) -> dict[str, dict[str, Any] | None]:
    """Per contestant `alone` and `shared`: seconds per part and in all, money; None where the run is not known."""
    items = {each.name: list(_items(each.record, each.run)) if each.record and each.run else None for each in found}
    users = Counter(key for paid in items.values() for key in {item.key for item in paid or ()})
    return {name: None if paid is None else _told(paid, users) for name, paid in items.items()}


def _told(paid: Sequence[Item], users: Counter[tuple[Any, ...]]) -> dict[str, Any]:
    ways = {"alone": [1.0] * len(paid), "shared": [1 / users[item.key] for item in paid]}
    told: dict[str, Any] = {way: _sums(paid, shares) for way, shares in ways.items()}
    return {**told, "whole": all(item.whole for item in paid)}


def _sums(paid: Sequence[Item], shares: Sequence[float]) -> dict[str, float]:
    parts = {part: sum(i.seconds * s for i, s in zip(paid, shares, strict=True) if i.part == part) for part in PARTS}
    money = sum(item.money * share for item, share in zip(paid, shares, strict=True))
    return {**parts, "seconds": sum(parts.values()), "money": money}


def _items(record: dict[str, Any], run: Path) -> Iterator[Item]:
    records = _up_to(record, run)
    root = str(run.resolve().parents[1])
    for line in record["stages"]:
        if line["kind"] != INDEX:
            yield _scored(line, record, records, root)
    for step in record["steps"]:
        if step["kind"] != "holdout":
            yield _decided(step, record, records, root)
    same = [other["seconds"].get("mix", 0.0) for other in records if other["selection"] == record["selection"]]
    yield Item("mixing", (root, record["selection"]), max(same, default=0.0))


def _up_to(record: dict[str, Any], run: Path) -> list[dict[str, Any]]:
    """The records of the workspace's runs up to this one."""
    files = sorted(run.resolve().parent.glob(f"*/{RECORD}"))
    return [other for other in map(read_json, files) if other["run"] <= record["run"]]


def _scored(line: dict[str, Any], record: dict[str, Any], records: Iterable[dict[str, Any]], root: str) -> Item:
    """All that was ever computed of these scores."""
    kind, where = line["kind"], _address(record, line["kind"])
    same = [other for other in records if _address(other, kind) == where]
    lines = [found for other in same for found in other["stages"] if found["kind"] == kind]
    paid = [found for other in same for found in other["spending"] if found["stage"] == kind]
    whole = sum(found["computed"] for found in lines) >= line["computed"] + line["reused"]
    seconds, money = sum(found["seconds"] for found in lines), sum(found["cost"] for found in paid)
    return Item("scoring", (root, kind, where), seconds, money, whole)


def _address(record: dict[str, Any], kind: str) -> tuple[tuple[str, str], ...]:
    found = record["addresses"].items()
    return tuple(sorted((name, at) for name, at in found if name == kind or name.startswith(f"{kind} of ")))


def _decided(step: dict[str, Any], record: dict[str, Any], records: Iterable[dict[str, Any]], root: str) -> Item:
    """A rule's decision; one that was reused cost what it cost the run that made it."""
    facts = {name: step[name] for name in ("name", "in", "kept", "dropped", "evidence")}
    made = [
        found["seconds"]
        for other in records
        for found in other["steps"]
        if not found["reused"] and {name: found[name] for name in facts} == facts
    ]
    return Item("selection", (root, record["run"], step["name"]), made[-1] if made else 0.0, whole=bool(made))

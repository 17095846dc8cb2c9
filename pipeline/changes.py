"""What is different between two runs, or between the last run and now: shards, settings, versions."""

from collections.abc import Iterable, Mapping
from typing import Any

import pyarrow as pa

from schemas.recipe import step_names

SHARD_CHANGES = ("new", "removed", "changed", "moved", "touched", "unreadable", "readable again")

StepKey = tuple[str, str | None, int]


def shard_changes(before: pa.Table, after: pa.Table) -> dict[str, list[str]]:
    """Paths by what happened to them, of two tables as pool.parquet; only kinds that occur.

    A shard has moved when its content stands under another path; it is touched when only its time is another.
    """
    old, new = _by_place(before), _by_place(after)
    gone = {(row["role"], row["source"], row["digest"]): place for place, row in old.items() if place not in new}
    found: dict[str, list[str]] = {kind: [] for kind in SHARD_CHANGES}
    moved = set()
    for place, row in new.items():
        if place in old:
            kind = _changed(old[place], row)
        elif row["digest"] is not None and (was := gone.get((row["role"], row["source"], row["digest"]))) is not None:
            kind = "moved"
            moved.add(was)
        else:
            kind = "new" if row["reason"] is None else "unreadable"
        if kind is not None:
            found[kind].append(row["path"])
    found["removed"] = [place[2] for place in old if place not in new and place not in moved]
    return {kind: sorted(paths) for kind, paths in found.items() if paths}


def _by_place(table: pa.Table) -> dict[tuple[str, str, str], dict[str, Any]]:
    return {(row["role"], row["source"], row["path"]): row for row in table.to_pylist()}


def _changed(before: Mapping[str, Any], after: Mapping[str, Any]) -> str | None:
    if (before["reason"] is None) != (after["reason"] is None):
        return "unreadable" if after["reason"] else "readable again"
    if before["digest"] != after["digest"]:
        return "changed"
    return "touched" if before["stamp"] != after["stamp"] else None


def setting_changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """What differs between two recipes, as sentences: `score clip: model was 'ViT-B-32', is 'ViT-L-14'`."""
    lines = []
    for part in ("score", "select"):
        lines += _step_changes(part, before.get(part) or [], after.get(part) or [])
    for part in sorted({*before, *after} - {"score", "select", "pool"}):
        lines += _value_changes(part, before.get(part), after.get(part))
    pools = [{source["source"]: source for source in recipe.get("pool", [])} for recipe in (before, after)]
    for source in sorted({*pools[0], *pools[1]}):
        lines += _value_changes(f"source {source}", pools[0].get(source), pools[1].get(source))
    return lines


def _step_changes(part: str, before: list[dict[str, Any]], after: list[dict[str, Any]]) -> list[str]:
    old, new = _matched(before), _matched(after)
    names = {**_names(part, old), **_names(part, new)}
    lines = [f"{part} {names[key]} is new" for key in new if key not in old]
    lines += [f"{part} {names[key]} is gone" for key in old if key not in new]
    for key in new:
        lines += _value_changes(f"{part} {names[key]}", old[key], new[key]) if key in old else []
    common = [names[key] for key in old if key in new], [names[key] for key in new if key in old]
    return lines + (
        [f"{part}: the order was {', '.join(common[0])}, is {', '.join(common[1])}"] if common[0] != common[1] else []
    )


def _matched(steps: Iterable[dict[str, Any]]) -> dict[StepKey, dict[str, Any]]:
    """Steps by kind, column and how many of both stand before them: what two recipes' steps are matched by."""
    found: dict[StepKey, dict[str, Any]] = {}
    for step in steps:
        alike = [key for key in found if key[:2] == (step["kind"], step.get("column"))]
        found[step["kind"], step.get("column"), len(alike)] = step
    return found


def _names(part: str, steps: Mapping[StepKey, dict[str, Any]]) -> dict[StepKey, str]:
    """What people read: a rule's name is that of the ledger."""
    kinds = [key[0] for key in steps]
    called = step_names(kinds) if part == "select" else kinds
    return {key: name + (f" of {key[1]}" if key[1] else "") for key, name in zip(steps, called, strict=True)}


def _value_changes(where: str, before: Any, after: Any) -> list[str]:
    if before == after:
        return []
    if isinstance(before, dict) and isinstance(after, dict):
        names = sorted({*before, *after})
        return [
            line for name in names for line in _value_changes(f"{where}: {name}", before.get(name), after.get(name))
        ]
    if before is None or after is None:
        return [f"{where} is new: {after!r}" if before is None else f"{where} is gone; it was {before!r}"]
    return [f"{where} was {before!r}, is {after!r}"]


def version_changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """Libraries, Python or processor that differ between two runs: beyond them the same bytes are not promised."""
    old = {**before.get("libraries", {}), "python": before.get("python"), "processor": before.get("processor")}
    new = {**after.get("libraries", {}), "python": after.get("python"), "processor": after.get("processor")}
    return [
        f"{name} was {old.get(name, 'not noted')}, is {new.get(name, 'not noted')}"
        for name in sorted({*old, *new})
        if old.get(name) != new.get(name)
    ]


def address_changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """Stages that both runs have under different addresses, so that all their scores were computed anew."""
    old, new = before.get("addresses", {}), after.get("addresses", {})
    changed = [kind for kind in sorted(old.keys() & new.keys()) if old[kind] != new[kind]]
    fits = [{line["kind"]: line.get("fit") for line in record.get("stages", [])} for record in (before, after)]
    return list(
        dict.fromkeys(
            _address_change(kind, *(of_run.get(kind.split(" of ")[0]) for of_run in fits)) for kind in changed
        )
    )


def _address_change(kind: str, before: Mapping[str, Any] | None, after: Mapping[str, Any] | None) -> str:
    if kind.startswith("index"):
        return "the index: ingest, or the way a container is read, changed"
    if before and after and before["method"] == after["method"] and before["sha256"] != after["sha256"]:
        return f"score {kind.split(' of ')[0]}: it has learned something else of other shards, or was pinned"
    return f"score {kind.split(' of ')[0]}: its settings, version, model or inputs changed"

"""One sample's whole story, from a run's ledger and the sidecars it was decided on."""

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl

from pipeline.fingerprints import rounded
from pipeline.ledger import read_ledger
from pipeline.sidecars import Workspace, read_json, read_table
from schemas.columns import COLUMNS, meaning
from schemas.errors import CuveeError
from schemas.tables import DROPPED, POOL_ROLE

MOST_FAVOURED = 5
"""Of the samples that left for this one, how many the terminal shows."""


def story(run_folder: Path, uid: str) -> dict[str, Any]:
    """The ledger's line, every score with its meaning, and what each step's evidence was.

    Raises:
        CuveeError: no sample, or more than one, has a uid that begins like this.
    """
    ledger = read_ledger(run_folder / "ledger")
    found = ledger.filter(pl.col("uid").str.starts_with(uid))
    if len(found) != 1:
        raise CuveeError(
            f"{len(found)} samples of run {run_folder.name} have a uid that begins with {uid!r}; expected 1"
        )
    line = found.row(0, named=True)
    record = read_json(run_folder / "run.json")
    scores = partial(_scores, run_folder, record)
    facts = {"run": record["run"], **line, "scores": scores(line)}
    facts["steps"] = [
        {
            "name": step["name"],
            "decided": _by(step) == line["decided_by"] and line["status"] == DROPPED,
            "settings": step.get("settings", {}),
            "likeness": step.get("likeness", ""),
            "evidence": step["evidence"],
        }
        for step in record["steps"]
    ]
    partners = _partners(ledger, line)
    if partners:
        facts["duplicate_of"] = partners[0]
        facts["preferred"] = _preferred(facts, scores(partners[0]))
    facts["partners"] = partners
    facts["favoured_over"] = _favoured(ledger, line["uid"])
    facts["shares"] = (record["shares"] or {}).get(line["source"])
    result: dict[str, Any] = rounded(facts)
    return result


def _partners(ledger: pl.DataFrame, line: dict[str, Any]) -> list[dict[str, Any]]:
    """For whom the sample left, for whom that one left, and so on to the first that left for nobody."""
    told = ("uid", "source", "shard", "row", "key", "role", "status", "decided_by", "reason")
    found: list[dict[str, Any]] = []
    while line["duplicate_of"] is not None:
        line = ledger.row(by_predicate=pl.col("uid") == line["duplicate_of"], named=True)
        found.append({name: line[name] for name in (*told, "duplicate_of", "similarity")})
    return found


def _preferred(facts: dict[str, Any], of_partner: dict[str, Any]) -> dict[str, Any] | None:
    """The score that said who of two stays, of both; no column: the uid did. None: the step has another order."""
    settings: dict[str, Any] = next((step["settings"] for step in facts["steps"] if step["decided"]), {})
    if "prefer" not in settings:
        return None
    by = settings["prefer"]
    return {"column": by, "here": facts["scores"].get(by), "there": of_partner.get(by)}


def _favoured(ledger: pl.DataFrame, uid: str) -> list[dict[str, Any]]:
    """Who left for this sample, the least alike last."""
    lines = ledger.filter(pl.col("duplicate_of") == uid)
    lines = lines.sort("similarity", "uid", descending=[True, False], nulls_last=True)
    return lines.select("uid", "decided_by", "reason", "similarity").to_dicts()


def _by(step: dict[str, Any]) -> str:
    """What the ledger calls a step; records of earlier versions knew its kind alone, and so did their ledgers."""
    name: str = step.get("decided_by", step["kind"])
    return name


def _scores(run_folder: Path, record: dict[str, Any], line: dict[str, Any]) -> dict[str, Any]:
    """Every score of a ledger's line, from the shard as it was then."""
    workspace = Workspace(run_folder.parents[1])
    own = run_folder / "pool.parquet"  # earlier versions kept the workspace's alone
    pool = (read_table(own) if own.exists() else workspace.read_pool()).to_pylist()
    place = (line["role"], line["source"], line["shard"])
    digests = [row["digest"] for row in pool if (row["role"], row["source"], row["path"]) == place and row["digest"]]
    scores: dict[str, Any] = {}
    for kind, address in sorted(record["addresses"].items(), key=lambda item: not item[0].startswith("index ")):
        if " of " in kind and not kind.endswith(f" of {line['source']}"):
            continue
        for digest in digests:
            path = workspace.sidecar(address, digest)
            if path.exists():
                row = pl.scan_parquet(path).slice(line["row"], 1).collect()
                scores |= {name: _readable(value) for name, value in row.row(0, named=True).items()}
    return scores


def _readable(value: Any) -> Any:
    if not isinstance(value, list):
        return value
    named = all(isinstance(part, str) for part in value)
    return ", ".join(value) or "none" if named else f"vector of {len(value)}"


def story_text(facts: dict[str, Any]) -> str:
    """The story for a terminal: where it is, its fate and why, who left for it, every score."""
    lines = [f"sample {facts['uid']}", f"  {facts['role']} {facts['source']}  {facts['shard']} row {facts['row']}"]
    lines.append(f"  key {facts['key']}")
    lines += [*_fate(facts), *_why(facts), *_instead(facts), *_others(facts["favoured_over"])]
    for name, value in facts["scores"].items():
        note = f"   {meaning(COLUMNS[name])}" if name in COLUMNS else ""
        lines.append(f"  {name:22} {value!s:.60}{note}")
    return "\n".join(map(_printable, lines))


def _fate(facts: dict[str, Any]) -> Iterator[str]:
    verdict = facts["status"] + (f" by {facts['decided_by']}: {facts['reason']}" if facts["reason"] else "")
    drawn = f", drawn {facts['repeats']} times" if facts["repeats"] else ""
    weight = f", weight {facts['weight']:.6g}" if facts["weight"] is not None else ""
    passed = facts["score"] is not None and not any(step["decided"] for step in facts["steps"])
    score = f", score {facts['score']:.6g}{_noise(facts)} by the last selector" if passed else ""
    yield f"  {verdict}{weight}{score}{drawn}"


def _noise(facts: dict[str, Any]) -> str:
    """Of a row that was drawn: what its score is without the noise; nothing for others and in earlier ledgers."""
    importance = facts.get("importance")
    return "" if importance is None else f" (importance {importance:.6g}, the rest is noise)"


def _why(facts: dict[str, Any]) -> Iterator[str]:
    """The step that decided: its settings, what it found, and how far the sample is from staying."""
    if facts["decided_by"] == "mix" and facts["shares"]:
        shares = ", ".join(f"{name} {share:.3f}" for name, share in facts["shares"].items())
        yield f"    share of {facts['source']}: {shares}; of the survivors in a share, more weight is drawn more often"
    for step in facts["steps"]:
        if step["decided"]:
            evidence = step["evidence"]
            found = {name: value for name, value in evidence.items() if not isinstance(value, dict | list)}
            yield f"    {step['name']}{': ' if step['settings'] else ''}{_listed(step['settings'])}"
            if found:
                yield f"    found: {_listed(found)}"
            yield from _border(facts, step["settings"].get("column"), evidence)


def _listed(values: dict[str, Any]) -> str:
    told = (f"{name}: {json.dumps(value, ensure_ascii=False)}" for name, value in values.items() if value is not None)
    return ", ".join(told)


def _border(facts: dict[str, Any], column: str | None, evidence: dict[str, Any]) -> Iterator[str]:
    reason, cuts = facts["reason"], evidence.get("thresholds", {})
    if (cut := cuts.get(facts["source"], cuts.get(""))) is not None and reason in (
        f"below_{column}",
        f"above_{column}",
    ):
        side = "from {} up" if reason.startswith("below") else "up to {}"
        yield f"    {column} is {facts['scores'].get(column)}; what has it {side.format(cut)} stays"
    elif reason in (f"other_{column}", f"excluded_{column}"):
        yield f"    {column} is {facts['scores'].get(column)}"
    if reason.startswith("not_") and None not in (facts["score"], border := evidence.get("border")):
        kept, of = evidence["budget"]["kept"], evidence["budget"]["eligible"]
        by = f"{facts['score']:.6g}{_noise(facts)}"
        yield f"    ranked by {by}, the highest first; {kept} of {of} stay, the last with {border:.6g}"


def _instead(facts: dict[str, Any]) -> Iterator[str]:
    """Who stayed in its place, why that one, and what became of it."""
    indent, alike, words = "  ", facts["similarity"], next((s["likeness"] for s in facts["steps"] if s["decided"]), "")
    for partner in facts["partners"]:
        where = partner["source"] if partner["role"] == POOL_ROLE else f"{partner['role']} {partner['source']}"
        close = "" if alike is None else f", similarity {alike:.3f}"
        close += f" ({words})" if close and words else ""
        yield f"{indent}duplicate of {partner['uid']} ({where}, key {partner['key']}){close}"
        if indent == "  " and (by := facts["preferred"]):
            values = f"{by['column']} is {by['here']}, there {by['there']}: the higher stays, of equals the smaller uid"
            yield "    " + (values if by["column"] else "none is preferred (`prefer`): the smaller uid stays")
        if partner["role"] == POOL_ROLE:
            left = f"was dropped by {partner['decided_by']}: {partner['reason']}"
            yield f"  {indent}which {left if partner['status'] == DROPPED else 'was kept'}"
        indent, alike, words = indent + "  ", partner["similarity"], ""


def _others(favoured: list[dict[str, Any]]) -> Iterator[str]:
    for other in favoured[:MOST_FAVOURED]:
        alike = f", similarity {other['similarity']:.3f}" if other["similarity"] is not None else ""
        yield f"  {other['uid']} left for this one, by {other['decided_by']}: {other['reason']}{alike}"
    if len(favoured) > MOST_FAVOURED:
        yield f"  and {len(favoured) - MOST_FAVOURED} more; --json lists all"


def _printable(line: str) -> str:
    """The line with control and bidirectional characters spelled out: keys and captions are others' text."""
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in line)

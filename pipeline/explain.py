"""One sample's whole story, from a run's ledger and the sidecars it was decided on."""

from pathlib import Path
from typing import Any

import polars as pl

from pipeline.fingerprints import rounded
from pipeline.ledger import read_ledger
from pipeline.sidecars import Workspace, read_json
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
    facts = {"run": record["run"], **line, "scores": _scores(Workspace(run_folder.parents[1]), record, line)}
    facts["steps"] = [
        {
            "name": step["name"],
            "decided": _by(step) == line["decided_by"] and line["status"] == DROPPED,
            "evidence": step["evidence"],
        }
        for step in record["steps"]
    ]
    if line["duplicate_of"]:
        partner = ledger.filter(pl.col("uid") == line["duplicate_of"])
        told = ("uid", "source", "shard", "key", "role", "status", "decided_by", "reason")
        facts["duplicate_of"] = partner.select(told).row(0, named=True)
    favoured = ledger.filter(pl.col("duplicate_of") == line["uid"]).sort("uid")
    facts["favoured_over"] = favoured.select("uid", "decided_by", "similarity").to_dicts()
    result: dict[str, Any] = rounded(facts)
    return result


def _by(step: dict[str, Any]) -> str:
    """What the ledger calls a step; records of earlier versions knew its kind alone, and so did their ledgers."""
    name: str = step.get("decided_by", step["kind"])
    return name


def _scores(workspace: Workspace, record: dict[str, Any], line: dict[str, Any]) -> dict[str, Any]:
    pool = workspace.read_pool().to_pylist()
    digests = [row["digest"] for row in pool if row["path"] == line["shard"] and row["digest"]]
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
    """The story for a terminal."""
    lines = [f"sample {facts['uid']}", f"  {facts['role']} {facts['source']}  {facts['shard']} row {facts['row']}"]
    lines.append(f"  key {facts['key']}")
    verdict = facts["status"] + (f" by {facts['decided_by']}: {facts['reason']}" if facts["reason"] else "")
    lines.append(f"  {verdict}" + (f", drawn {facts['repeats']} times" if facts["repeats"] else ""))
    if isinstance(facts["duplicate_of"], dict):
        partner = facts["duplicate_of"]
        alike = f", similarity {facts['similarity']:.3f}" if facts["similarity"] is not None else ""
        lines.append(f"  duplicate of {partner['uid']} ({partner['source']}, key {partner['key']}){alike}")
        if partner["status"] == DROPPED and partner["role"] == POOL_ROLE:
            lines.append(f"    which was dropped by {partner['decided_by']}: {partner['reason']}")
    others = facts["favoured_over"]
    for other in others[:MOST_FAVOURED]:
        lines.append(f"  kept by {other['decided_by']} instead of {other['uid']}")
    if len(others) > MOST_FAVOURED:
        lines.append(f"  and of {len(others) - MOST_FAVOURED} more; --json lists all")
    for name, value in facts["scores"].items():
        note = f"   {meaning(COLUMNS[name])}" if name in COLUMNS else ""
        lines.append(f"  {name:22} {value!s:.60}{note}")
    return "\n".join(map(_printable, lines))


def _printable(line: str) -> str:
    """The line with control and bidirectional characters spelled out: keys and captions are others' text."""
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in line)

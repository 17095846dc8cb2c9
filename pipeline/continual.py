"""What a run that re-curates says to a trainer that goes on: which exported samples are new, which to replay, and how.

Beside the run's record, not in the export: an export knows nothing of earlier ones. Two files: continual.json, and
continual.parquet, which says of every exported sample whether it is `new` or `kept`. The shift is the total variation
between the sources' shares of what was exported before and of what is new; how the numbers follow from it, and which
of them are published ones, stands in docs/continual.md.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from pipeline.resolve import Resolved
from pipeline.sidecars import read_json, write_json, write_table
from schemas.tables import CONTINUAL, NEW_PART, REPLAY_PART

STRONG = 0.5
"""Total variation above which a shift counts as strong."""
REPLAY = {"weak": 0.05, "strong": 0.25}
"""Share of old samples in every batch."""
EPOCHS = 3
"""Over the new samples."""


@dataclass(frozen=True)
class Earlier:
    """The newest run of this recipe that exported something else."""

    run: str
    selection: str


def earlier_export(resolved: Resolved, selection: str) -> Earlier | None:
    """The newest finished run of this recipe's name with an export and its selection still there; None where none is.

    None as well where it drew the same samples.
    """
    for path in sorted(resolved.workspace.root.glob("runs/*/run.json"), reverse=True):
        record = read_json(path)
        if record["recipe"]["name"] == resolved.recipe.name and record["export"] and record["selection"]:
            found = Earlier(record["run"], record["selection"])
            there = resolved.workspace.selection(found.selection).exists()
            return found if there and found.selection != selection else None
    return None


def going_on(resolved: Resolved, selection: str, export_folder: Path) -> tuple[dict[str, Any], pl.DataFrame] | None:
    """What continual.json and continual.parquet hold; None for a first run, or where nothing is new.

    Args:
        resolved: the recipe.
        selection: fingerprint of this run's selection.
        export_folder: where its members.parquet lies.
    """
    if (before := earlier_export(resolved, selection)) is None:
        return None
    old = pl.read_parquet(resolved.workspace.selection(before.selection))
    members = pl.read_parquet(export_folder / "members.parquet")
    known = pl.col("uid").is_in(old["uid"].to_list())
    part = pl.when(known).then(pl.lit(REPLAY_PART)).otherwise(pl.lit(NEW_PART)).alias("part")
    parts = members.with_columns(part).select(CONTINUAL.names)
    new, kept = (int((parts["part"] == name).sum()) for name in (NEW_PART, REPLAY_PART))
    if not new:
        return None
    shift = total_variation(_shares(old, "repeats"), _shares(members.filter(~known)))
    kind = "strong" if shift > STRONG else "weak"
    share = REPLAY[kind] if kept else 0.0
    gone = len(old.join(members, on="uid", how="anti"))
    facts = {
        "since": {"run": before.run, "selection": before.selection},
        "samples": {"new": new, "kept": kept, "gone": gone},
        "shift": {"value": shift, "measure": "total variation of source shares", "strong_above": STRONG, "kind": kind},
        "replay": {"share": share, "part": REPLAY_PART},
        "epochs": EPOCHS,
        "draw": {NEW_PART: EPOCHS * new, REPLAY_PART: round(EPOCHS * new * share / (1 - share))},
        "learning_rate": _rate(resolved),
        "parts": "continual.parquet",
    }
    return facts, parts


def _shares(rows: pl.DataFrame, repeats: str | None = None) -> dict[str, float]:
    count = pl.col(repeats).sum() if repeats else pl.len()
    counted = rows.group_by("source").agg(count.alias("rows")).sort("source")
    total = int(counted["rows"].sum())
    return {source: rows / total for source, rows in counted.iter_rows()}


def total_variation(left: dict[str, float], right: dict[str, float]) -> float:
    """Half the sum of differences between two sets of shares, in [0, 1]."""
    return sum(abs(left.get(name, 0.0) - right.get(name, 0.0)) for name in sorted({*left, *right})) / 2


def _rate(resolved: Resolved) -> dict[str, Any]:
    """Linear re-warming to the original peak, cosine re-decay; the peak is the recipe's, where it names one."""
    train = resolved.recipe.train.settings() if resolved.recipe.train else {}
    peak = {"peak": train["learning_rate"]} if "learning_rate" in train else {}
    return {"rewarm": "linear", "to": "the original peak", **peak, "decay": "cosine"}


def write_going_on(found: tuple[dict[str, Any], pl.DataFrame], folder: Path) -> None:
    """Both files into a run's folder."""
    facts, parts = found
    write_table(parts.to_arrow().cast(CONTINUAL), folder / "continual.parquet")
    write_json(facts, folder / "continual.json")

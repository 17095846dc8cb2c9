"""`cuvee diff`: what changed between two runs, in the pool, the recipe and the outcome, and which fates with it."""

from pathlib import Path
from typing import Any

import polars as pl

from pipeline.changes import address_changes, setting_changes, shard_changes, version_changes
from pipeline.ledger import read_ledger
from pipeline.sidecars import read_json, read_table
from schemas.errors import CuveeError
from schemas.tables import KEPT, POOL_ROLE

MOST_LINES = 12
MOST_EXAMPLES = 3


def diff(before: Path, after: Path) -> dict[str, Any]:
    """Compare two runs' folders.

    Raises:
        CuveeError: a folder holds no run, or one from before runs kept a list of their shards.
    """
    records = [_record(folder) for folder in (before, after)]
    pools = [read_table(folder / "pool.parquet") for folder in (before, after)]
    ledgers = [read_ledger(folder / "ledger").filter(pl.col("role") == POOL_ROLE) for folder in (before, after)]
    return {
        "runs": [record["run"] for record in records],
        "shards": shard_changes(*pools),
        "settings": setting_changes(records[0]["recipe"], records[1]["recipe"]),
        "stages": address_changes(*records),
        "versions": version_changes(*records),
        "until": [record["until"] for record in records],
        "samples": [record["samples"] for record in records],
        "kept": _kept(*ledgers),
        "fates": _fates(*ledgers),
        "shares": [_realised(record) for record in records],
        "notes": [record["notes"] for record in records],
    }


def _record(folder: Path) -> dict[str, Any]:
    if not (folder / "run.json").exists() or not (folder / "pool.parquet").exists():
        raise CuveeError(f"{folder} holds no finished run with run.json and pool.parquet; name two runs of a workspace")
    record: dict[str, Any] = read_json(folder / "run.json")
    return record


def _kept(before: pl.DataFrame, after: pl.DataFrame) -> dict[str, int]:
    """Samples kept in both runs, or in one of them only."""
    old, new = (ledger.filter(pl.col("status") == KEPT).select("uid") for ledger in (before, after))
    both = len(old.join(new, on="uid"))
    return {"both": both, "first only": len(old) - both, "second only": len(new) - both}


def _fates(before: pl.DataFrame, after: pl.DataFrame) -> list[dict[str, Any]]:
    """Samples whose fate changed, counted by what it was and is, most first, with examples.

    A duplicate that leaves by the same step for another sample than before counts, too.
    """
    fate = (
        pl.when(pl.col("reason").is_null())
        .then("status")
        .otherwise(pl.concat_str("reason", pl.lit(" ("), pl.col("decided_by").fill_null("?"), pl.lit(")")))
    )
    columns = ["uid", "source", fate.alias("fate"), "duplicate_of"]
    frames = [ledger.filter(pl.col("uid").is_not_null()).select(columns) for ledger in (before, after)]
    joined = frames[0].join(frames[1], on="uid", how="full", suffix="_after", coalesce=True)
    other = (pl.col("fate") == pl.col("fate_after")) & (pl.col("duplicate_of") != pl.col("duplicate_of_after"))
    now = pl.when(other).then(pl.col("fate_after") + " of another sample").otherwise("fate_after")
    changed = joined.with_columns(
        pl.col("fate").fill_null("not in the pool"),
        now.fill_null("not in the pool").alias("fate_after"),
    ).filter(pl.col("fate") != pl.col("fate_after"))
    counts = (
        changed.sort("uid")
        .group_by("fate", "fate_after", maintain_order=True)
        .agg(pl.len().alias("samples"), pl.col("uid").head(MOST_EXAMPLES).alias("examples"))
    )
    named = counts.rename({"fate": "was", "fate_after": "is"})
    return named.sort(["samples", "was", "is"], descending=[True, False, False]).to_dicts()


def _realised(record: dict[str, Any]) -> dict[str, float]:
    return {source: parts["realised"] for source, parts in (record["shares"] or {}).items()}


def diff_text(facts: dict[str, Any]) -> str:
    """The comparison for a terminal."""
    lines = [f"{facts['runs'][0]} -> {facts['runs'][1]}"]
    for kind, paths in facts["shards"].items():
        more = f" and {len(paths) - 3} more" if len(paths) > 3 else ""
        lines.append(f"  {len(paths)} shards {kind}: {', '.join(paths[:3])}{more}")
    lines += _first([f"  {line}" for line in [*facts["settings"], *facts["stages"], *facts["versions"]]])
    if len(lines) == 1:
        lines.append("  same shards, same settings, same versions")
    if facts["until"][0] != facts["until"][1]:
        lines.append(f"  the first went as far as `{facts['until'][0]}`, the second as far as `{facts['until'][1]}`")
    kept = facts["kept"]
    lines.append(f"  kept: {kept['both']} in both, {kept['first only']} only before, {kept['second only']} only now")
    lines += _first(
        [
            f"    {fate['samples']:>8}  {fate['was']} -> {fate['is']}   e.g. {fate['examples'][0]}"
            for fate in facts["fates"]
        ]
    )
    for source in sorted({*facts["shares"][0], *facts["shares"][1]}) if all(facts["shares"]) else ():
        was, now = (shares.get(source, 0.0) for shares in facts["shares"])
        if was != now:
            lines.append(f"  share of {source}: {was:.3f} -> {now:.3f}")
    return "\n".join(lines)


def _first(lines: list[str]) -> list[str]:
    """As many as a terminal is to show, and how many those leave out."""
    more = len(lines) - MOST_LINES
    return [*lines[:MOST_LINES], f"    and {more} more; --json lists all"] if more > 0 else lines

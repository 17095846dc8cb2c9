"""Every sample once, with its fate; a run that cannot show `in = kept + dropped + quarantined` fails."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import polars as pl

from pipeline.blend import Blend
from pipeline.plan import Shard
from pipeline.select import Selected
from pipeline.sidecars import write_table
from schemas.errors import ContractError
from schemas.tables import DROPPED, KEPT, LEDGER, POOL_ROLE, QUARANTINED, REFERENCE_ROLE, TARGET_ROLE
from stages.rule import DRAWN_SCHEMA, DROPPED_SCHEMA, scores_told

NOT_DRAWN = "not_drawn"
PARTNERS = {name: DROPPED_SCHEMA[name] for name in ("uid", "duplicate_of", "similarity")}


def make_ledger(chosen: Selected, blend: Blend | None) -> pl.DataFrame:
    """One line per sample of pool, target, held-out and reference shards, columns as `schemas.tables.LEDGER`.

    Raises:
        ContractError: the lines do not add up to what the containers hold.
    """
    fates = [chosen.quarantined.select("uid", pl.lit(QUARANTINED).alias("status"), "decided_by", "reason")]
    partners = [pl.DataFrame(schema=PARTNERS)]
    for decision in chosen.decisions:
        dropped = decision.verdict.dropped
        named = pl.lit(decision.name).alias("decided_by")
        fates.append(dropped.select("uid", pl.lit(DROPPED).alias("status"), named, "reason"))
        partners.append(dropped.select(*PARTNERS))
    if blend is not None:
        idle = blend.draws.filter(pl.col("repeats") == 0)
        why = [pl.lit(DROPPED).alias("status"), pl.lit("mix").alias("decided_by"), pl.lit(NOT_DRAWN).alias("reason")]
        fates.append(idle.select("uid", *why))
    lines = chosen.table.samples.select("uid", "role", "source", "shard", "row", "key")
    lines = lines.join(pl.concat(fates), on="uid", how="left", validate="1:1")
    lines = lines.join(pl.concat(partners), on="uid", how="left", validate="1:1")
    lines = lines.join(_last_scores(chosen), on="uid", how="left", validate="1:1")
    lines = _with_weights(lines.with_columns(pl.col("status").fill_null(KEPT)), chosen, blend)
    lines = pl.concat([lines.select(LEDGER.names), unreadable(chosen.table.shards)]).sort(
        "role", "source", "shard", "row"
    )
    assert_conserved(lines, chosen)
    return lines


def _last_scores(chosen: Selected) -> pl.DataFrame:
    """(uid, score, importance) of each row by the last step that ranked it."""
    ranked = [scores_told(step.verdict) for step in reversed(chosen.decisions)]
    return pl.concat([pl.DataFrame(schema=DRAWN_SCHEMA), *ranked]).unique("uid", keep="first", maintain_order=True)


def _with_weights(lines: pl.DataFrame, chosen: Selected, blend: Blend | None) -> pl.DataFrame:
    weights = chosen.survivors.select("uid", "weight")
    draws = blend.draws if blend is not None else chosen.survivors.select("uid", pl.lit(1).alias("repeats"))
    lines = lines.join(weights, on="uid", how="left").join(draws.select("uid", "repeats"), on="uid", how="left")
    used = (pl.col("status") == KEPT) & (pl.col("role") != POOL_ROLE)
    held = used & pl.col("uid").is_in(chosen.held["uid"].to_list())
    reference = used & (pl.col("role") == REFERENCE_ROLE)
    compared = pl.when(reference).then(pl.lit(REFERENCE_ROLE)).otherwise(pl.lit(TARGET_ROLE))
    decided = pl.when(held).then(pl.lit("holdout")).when(used).then(compared).otherwise(pl.col("decided_by"))
    return lines.with_columns(
        decided.alias("decided_by"),
        pl.col("weight").cast(pl.Float64),
        pl.col("repeats").fill_null(0).cast(pl.Int32),
    )


def unreadable(shards: Iterable[Shard]) -> pl.DataFrame:
    """A shard that cannot be read is one quarantined line without a key."""
    rows: list[dict[str, Any]] = [
        dict.fromkeys(LEDGER.names)
        | {
            "role": shard.input.role,
            "source": shard.input.source,
            "shard": shard.input.container.path,
            "status": QUARANTINED,
            "decided_by": "ingest",
            "reason": shard.reason,
            "repeats": 0,
        }
        for shard in shards
        if shard.digest is None
    ]
    empty = pl.from_arrow(LEDGER.empty_table())
    assert isinstance(empty, pl.DataFrame)
    return pl.DataFrame(rows, schema=empty.schema)


def assert_conserved(lines: pl.DataFrame, chosen: Selected) -> None:
    """`in = kept + dropped + quarantined`, where `in` is the containers' own count.

    Raises:
        ContractError: with the numbers.
    """
    counted = chosen.table.counted()
    known = lines.filter(pl.col("uid").is_not_null())
    doubled = len(known) - known["uid"].n_unique()
    by_status = dict(lines.group_by("status").len().iter_rows())
    if sum(by_status.values()) != counted or doubled or set(by_status) - {KEPT, DROPPED, QUARANTINED}:
        raise ContractError(
            f"the ledger holds {by_status} lines, {doubled} of them twice, for {counted} samples in the containers"
        )


def write_ledger(lines: pl.DataFrame, folder: Path) -> None:
    """A Parquet file per source, sorted by (shard, row); no source may be called `target` or `eval`, they are roles."""
    for (source,), part in lines.partition_by("source", as_dict=True, maintain_order=True).items():
        write_table(part.to_arrow().cast(LEDGER), folder / f"{source}.parquet")


def read_ledger(folder: Path) -> pl.DataFrame:
    """All of a run's ledger."""
    files = sorted(folder.glob("*.parquet"))
    return pl.concat([pl.read_parquet(file) for file in files])

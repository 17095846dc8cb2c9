"""Which sample goes where: repeats spelled out, shuffled, cut into shards, each with the byte ranges of its members."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.cluster import Cluster
from pipeline.export.draws import Draws
from pipeline.export.format import Layout
from pipeline.export.split import assigned
from pipeline.export.spool import Spool, needs_spool, spooled_bytes, spooled_index
from pipeline.shards import Container
from pipeline.sidecars import read_table, replacing, write_table
from pipeline.tasks import run_tasks
from schemas.columns import CAPTIONS
from schemas.errors import CuveeError
from schemas.recipe import TRAIN_SPLIT
from schemas.tables import POOL_ROLE
from stages.noise import uniform_noise

PLAN = "plan.parquet"
SPOOL = ".spool"
DRAWN = "drawn.parquet"
PLANNED = ("exported_key", "place", "row", "members", "content_hash")
"""What a worker needs of the samples it writes."""


@dataclass(frozen=True)
class ExportPlan:
    """The samples in output order, and where each container's members can be read by ranges."""

    samples: pl.DataFrame
    """One line per exported sample: new key and shard, uid, source, original key, digest, place, row, split."""
    containers: dict[str, str]
    """Place -> path of a tar or a spool."""

    @property
    def shards(self) -> list[str]:
        """Names of the output shards, in order."""
        return self.samples["exported_shard"].unique(maintain_order=True).to_list()


def make_export_plan(draws: Draws, staging: Path, names: str, cluster: Cluster) -> ExportPlan:
    """Order the drawn samples, unpack what cannot be read by ranges, write the plan: one row group an output shard."""
    samples = ordered(draws, names)
    places = places_of(draws)
    containers = {place: facts["container"]["path"] for place, facts in places.items()}
    spooled = _spool(draws, staging, samples, places, cluster)
    containers |= {place: str(spooled_bytes(staging / SPOOL, place)) for place in spooled}
    if not (staging / PLAN).exists():
        ranges = _ranges(draws, staging, samples, places, spooled)
        joined = samples.join(ranges, on=["place", "row"], how="left", maintain_order="left", validate="m:1")
        columns = list(PLANNED)
        if draws.captions is not None:
            joined = joined.join(draws.captions, on="uid", how="left", maintain_order="left", validate="m:1")
            columns.append(CAPTIONS.name)
        counts = samples.group_by("exported_shard", maintain_order=True).len()["len"]
        _write(joined.select(columns), counts, staging / PLAN)
    return ExportPlan(samples, containers)


def ordered(draws: Draws, names: str) -> pl.DataFrame:
    """The samples in output order: repeats spelled out, shuffled by (seed, uid, repeat), cut into shards by split.

    Raises:
        CuveeError: see `assigned`.
    """
    identity = draws.table.samples.filter(pl.col("role") == POOL_ROLE)
    drawn = draws.repeats.filter(pl.col("repeats") > 0).join(identity, on="uid", validate="1:1").sort("uid")
    drawn = drawn.with_columns(assigned(draws, drawn))
    spelled = drawn.with_columns(pl.int_ranges(0, pl.col("repeats")).alias("repeat")).explode("repeat")
    suffix = pl.when(pl.col("repeats") > 1).then(pl.format("-{}", "repeat")).otherwise(pl.lit(""))
    keyed = spelled.with_columns((pl.col("uid") + suffix).alias("exported_key"))
    noise = uniform_noise(keyed["exported_key"].to_list(), draws.seed, "export order")
    shuffled = keyed.with_columns(pl.Series("order", noise)).sort("split", "order", "exported_key")
    return shuffled.with_columns(_shards(shuffled["split"], names, draws.settings.samples_per_shard)).select(
        "exported_key",
        "exported_shard",
        "uid",
        "source",
        "key",
        "digest",
        pl.concat_str("digest", "source", separator="/").alias("place"),
        "row",
        "split",
    )


def _shards(splits: pl.Series, names: str, samples_per_shard: int) -> pl.Series:
    """(n,) the output shard of each sample, from its split; `splits` is sorted."""
    shards: list[str] = []
    for split, samples in splits.value_counts().sort("split").iter_rows():
        count = -(-samples // samples_per_shard)
        facts = {"folder": f"{split}/" if split else "", "split": split or TRAIN_SPLIT, "count": count}
        named = [names.format(number=number, **facts) for number in range(count)]
        shards += [named[place // samples_per_shard] for place in range(samples)]
    return pl.Series("exported_shard", shards, pl.String)


def read_layout(plan: Path, scores: Sequence[pa.Field]) -> Layout:
    """Which members the planned samples have, and how the scores that go along are declared."""
    with pq.ParquetFile(plan) as file:
        members = file.read(["members.list.element.name"])["members"].combine_chunks()
    names = pl.from_arrow(members.flatten().field("name"))
    assert isinstance(names, pl.Series)
    lists = pl.from_arrow(pa.LargeListArray.from_arrays(members.offsets, suffixes_of(names).to_arrow()))
    assert isinstance(lists, pl.Series)
    found = {tuple(sorted(suffix for suffix in one if suffix)) for one in lists.unique().to_list()}
    return Layout(tuple(sorted(found)), pa.schema(scores))


def suffixes_of(names: pl.Series) -> pl.Series:
    """(n,) suffixes as `split_name` cuts them off; "" or null where there is none."""
    if names.str.contains("/", literal=True).any():
        names = names.str.split("/").list.last()
    parts = names.str.splitn(".", 2).struct.unnest()
    stem, suffix = parts.to_series(0), parts.to_series(1)
    return suffix.str.to_lowercase().set(stem == "", None)


def places_of(draws: Draws) -> dict[str, dict[str, Any]]:
    """Per digest/source, where a shard can be read again; twins by content serve for each other."""
    return {
        f"{shard.digest}/{shard.input.source}": {
            "container": vars(shard.input.container),
            "index": shard.input.index_address,
        }
        for shard in sorted(draws.table.shards, key=lambda shard: shard.input.container.path, reverse=True)
        if shard.digest is not None and shard.input.role == POOL_ROLE
    }


def _spool(
    draws: Draws, staging: Path, samples: pl.DataFrame, places: dict[str, dict[str, Any]], cluster: Cluster
) -> list[str]:
    used = samples["place"].unique().sort().to_list()
    wanted = [place for place in used if needs_spool(Container(**places[place]["container"]))]
    missing = [place for place in wanted if not spooled_index(staging / SPOOL, place).exists()]
    if missing:
        drawn = samples.filter(pl.col("place").is_in(missing)).select("place", "digest", "row").unique().sort("place")
        write_table(drawn.to_arrow(), staging / DRAWN)
        workspace = str(draws.table.resolved.workspace.root)
        job = Spool(workspace, str(staging / SPOOL), {p: places[p] for p in missing}, str(staging / DRAWN))
        for _ in run_tasks(cluster, job, missing):
            pass
    return wanted


def _ranges(
    draws: Draws, staging: Path, samples: pl.DataFrame, places: dict[str, dict[str, Any]], spooled: list[str]
) -> pl.DataFrame:
    """(place, row, members, content_hash) of every drawn sample; each index is read once."""

    def of_place(part: pl.DataFrame) -> pa.Table:
        name, rows = str(part["place"][0]), part["row"].sort().to_arrow()
        path = draws.table.resolved.workspace.sidecar(places[name]["index"], part["digest"][0])
        index = read_table(path, ["members", "content_hash"]).take(rows)
        members = index["members"]
        if name in spooled:
            there = read_table(spooled_index(staging / SPOOL, name))
            if not there["row"].equals(pa.chunked_array([rows])):
                raise CuveeError(f"{staging} holds the leftovers of another export; remove it, then run again")
            members = there["members"]
        columns = [pa.nulls(len(rows), pa.string()).fill_null(name), rows, members, index["content_hash"]]
        return pa.table(columns, ["place", "row", "members", "content_hash"])

    parts = samples.select("place", "digest", "row").unique().partition_by("place")
    with ThreadPoolExecutor(os.cpu_count()) as readers:
        found = pl.from_arrow(pa.concat_tables(readers.map(of_place, parts)))
    assert isinstance(found, pl.DataFrame)
    return found


def _write(planned: pl.DataFrame, counts: pl.Series, path: Path) -> None:
    """The plan, as many lines a row group as `counts` says."""
    table = planned.to_arrow()
    first = 0
    # All but the places differ from line to line, and nobody asks for ranges of values.
    form = {"compression": "none", "use_dictionary": ["place"], "write_statistics": False}
    with replacing(path) as temporary, pq.ParquetWriter(temporary, table.schema, **form) as writer:
        for count in counts:
            writer.write_table(table.slice(first, count), row_group_size=count)
            first += count

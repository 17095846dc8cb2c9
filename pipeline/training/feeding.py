"""Samples for a trainer straight from the pool's shards: what is drawn, read by the index; no tar is written for it.

A sample has the key, the members and so the image and the caption that it would have in exported tars, read by byte
ranges, row groups or paths, as the export reads it; a compressed archive takes one pass.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import xxhash

from pipeline.export import Draws
from pipeline.export.plan import ordered, places_of
from pipeline.shards import Container, read_members
from pipeline.shards.expand import is_url
from pipeline.shards.ranges import changed
from pipeline.shards.records import Member
from pipeline.shards.rows import content_hash
from pipeline.sidecars import Workspace, read_table, write_table
from schemas.tables import POOL_ROLE
from stages.train.samples import Pair, as_pair

FEED = "feed.parquet"
"""Every sample, repeats spelled out, in the order of an export."""
BY_ITSELF = ("tar", "folder")
"""Formats of which one image is read without those around it."""
COLUMNS = ("exported_key", "uid", "source", "place", "row")


@dataclass(frozen=True, slots=True)
class Row:
    """Reads the image of one row of an index once more."""

    container: Container
    index: pa.Table
    number: int

    @property
    def shard(self) -> str:
        """Where it lies."""
        return self.container.path

    def __call__(self) -> bytes:
        """The bytes.

        Raises:
            ShardError: the container cannot be read, or lacks the row.
        """
        return _pair("", next(read_members(self.container, self.index.slice(self.number, 1)))).image or b""


@dataclass(frozen=True)
class Feed:
    """The samples of an arm; calling it reads them. It travels to other processes as plain values."""

    workspace: str
    listed: str
    """The file that names them."""
    places: Mapping[str, Mapping[str, Any]]
    """Digest/source -> the container, and the address of its index."""

    def __call__(self) -> Iterator[Pair]:
        """Every sample, container by container, in the order in which it is read fastest.

        Raises:
            ShardError: a shard is not what it was when it was indexed.
        """
        lines = pl.read_parquet(self.listed).filter(pl.col("place").is_in(list(self.places)))
        lines = lines.sort("place", "row", "exported_key")
        told = [name for name in lines.columns if name == "source" or name not in COLUMNS]
        for (place,), part in lines.partition_by("place", as_dict=True, maintain_order=True).items():
            keys = part.group_by("row", maintain_order=True).agg("exported_key", pl.col(told).first())
            container, index = self._rows(str(place), keys["row"].to_arrow())
            samples = zip(read_members(container, index), index["content_hash"].to_pylist(), strict=True)
            values = keys.select(told).to_dicts()
            lines_of = enumerate(zip(keys["exported_key"], samples, values, strict=True))
            for number, (names, (members, expected), columns) in lines_of:
                _check(members, expected, container)
                again = Row(container, index, number) if container.format in BY_ITSELF else None
                pairs = (_pair(name, members) for name in names)
                yield from (replace(pair, columns=columns, shard=container.path, again=again) for pair in pairs)

    def parts(self) -> "tuple[Feed, ...]":
        """The same, container by container."""
        return tuple(replace(self, places={place: facts}) for place, facts in self.places.items())

    def _rows(self, place: str, rows: pa.Array) -> tuple[Container, pa.Table]:
        facts, digest = self.places[place], place.split("/", 1)[0]
        index = read_table(Workspace(Path(self.workspace)).sidecar(facts["index"], digest))
        return Container(**facts["container"]), index.take(rows)


def feed(draws: Draws, folder: Path, columns: Sequence[str] = ()) -> Feed:
    """What reads the drawn samples; the list of them is written to `folder`.

    Args:
        draws: the samples.
        folder: of the list.
        columns: scores that go along with each sample, as in an export with them; one that no stage writes is left out.
    """
    samples, table = ordered(draws, "{folder}{number:05d}"), draws.table
    written = {field.name for stage in table.resolved.stages for field in stage.writes}
    scores = [name for name in columns if name in written]
    if scores:
        values = table.scores(POOL_ROLE, scores).drop("source").collect()
        samples = samples.join(values, on="uid", how="left", validate="m:1", maintain_order="left")
    listed = folder / f"{'-'.join(['feed', *scores])}.parquet"
    return feed_of(samples, places_of(draws), table.resolved.workspace, listed, scores)


def feed_of(
    samples: pl.DataFrame,
    known: Mapping[str, Mapping[str, Any]],
    workspace: Workspace,
    listed: Path,
    scores: Sequence[str] = (),
) -> Feed:
    """The same of samples by (exported_key, uid, source, place, row, *scores) and what is known of their places."""
    if not listed.exists():
        write_table(samples.select(*COLUMNS, *scores).to_arrow(), listed)
    used = {place: _absolute(known[place]) for place in samples["place"].unique().sort().to_list()}
    return Feed(str(workspace.root), str(listed), used)


def _pair(name: str, members: list[Member]) -> Pair:
    return as_pair({"__key__": name, **{suffix[1:].lower(): content for suffix, content in members}})


def _check(members: list[Member], expected: str | None, container: Container) -> None:
    """What is trained on is what was scored."""
    facts = ((suffix[1:], len(content), xxhash.xxh3_128_hexdigest(content)) for suffix, content in members)
    if content_hash(facts) != expected:
        raise changed(container.path)


def _absolute(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Workers run in other folders."""
    container = Container(**facts["container"])
    path, root = (at if is_url(at) or not at else os.path.abspath(at) for at in (container.path, container.root))
    return {"index": facts["index"], "container": vars(replace(container, path=path, root=root))}

"""Random access to what has none: the drawn samples of a compressed tar, a Parquet file or a table, unpacked once.

Output shards are shuffled over the whole pool, so each one reads from every input. A tar answers by byte ranges; any
other container would have to be read from its start once per output shard. Here each is read once, by one task.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa

from pipeline.shards import Container, read_members
from pipeline.shards.inflating import pieces_of
from pipeline.shards.streams import open_bytes
from pipeline.sidecars import Workspace, read_table, replacing, write_table
from pipeline.tasks import Task
from schemas.tables import MEMBER

HEAD = bytes(512)
"""A spool begins with zeros, so that no member's first bytes are taken for a compressed file's."""
SPOOLED = pa.schema([("row", pa.int64()), ("members", pa.list_(MEMBER))])


def needs_spool(container: Container) -> bool:
    """Whether reading a few of its samples means reading what stands before them."""
    if container.format != "tar":
        return True
    with open_bytes(container.path) as file:
        return pieces_of(file.read(4)) is not None


@dataclass(frozen=True)
class Spool:
    """Unpacks containers in a worker; plain values only, so that it travels as it is."""

    workspace: str
    folder: str
    places: dict[str, dict[str, Any]]
    """Per place, the container and its index address."""
    drawn: str
    """Parquet file with (place, digest, row) of every drawn sample."""

    def open(self) -> Task:
        """Nothing is heavy here."""
        return self.unpack

    def unpack(self, place: str) -> Iterator[None]:
        """Write the members of the drawn samples of one container, one after the other, and where they lie."""
        wanted = pl.read_parquet(self.drawn).filter(pl.col("place") == place)
        rows, digest = wanted["row"].unique().sort(), str(wanted["digest"][0])
        facts = self.places[place]
        index = read_table(Workspace(Path(self.workspace)).sidecar(facts["index"], digest))
        found = read_members(Container(**facts["container"]), index.take(rows.to_arrow()))
        position = len(HEAD)
        members: list[list[dict[str, Any]]] = []
        with replacing(spooled_bytes(Path(self.folder), place)) as temporary, open(temporary, "wb") as out:
            out.write(HEAD)
            for sample in found:
                members.append([])
                for suffix, content in sample:
                    out.write(content)
                    members[-1].append({"name": f"sample{suffix}", "offset": position, "size": len(content)})
                    position += len(content)
        table = pa.table([rows.to_arrow(), pa.array(members, SPOOLED.field("members").type)], SPOOLED)
        write_table(table, spooled_index(Path(self.folder), place))
        yield None


def spooled_bytes(folder: Path, place: str) -> Path:
    """The unpacked members of one container."""
    return folder / f"{place.replace('/', '-')}.bytes"


def spooled_index(folder: Path, place: str) -> Path:
    """Where they lie in it; written last, so it stands for the whole."""
    return folder / f"{place.replace('/', '-')}.parquet"

"""Writes one output shard in a worker: byte ranges of the input, checked against what was scored."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.export.block import Block
from pipeline.export.direct import Room
from pipeline.export.format import Format
from pipeline.export.planned import WINDOW_BYTES, Planned, read_planned
from pipeline.fingerprints import rounded
from pipeline.shards.expand import is_url
from pipeline.shards.ranges import Target, changed, open_ranges
from pipeline.sidecars import Workspace, read_table, replacing
from pipeline.tasks import Task

REMOTE_READERS = 16
"""Objects read at the same time: a request to a store is nearly all waiting."""


@dataclass(frozen=True)
class WriteShard:
    """Writes output shards; plain values only, so that it travels as it is."""

    workspace: str
    staging: str
    plan: str
    groups: dict[str, int]
    """Output shard -> row group of the plan."""
    containers: dict[str, str]
    """Place -> path of a tar or a spool."""
    columns: dict[str, dict[str, str]]
    """Score column -> source -> sidecar folder."""
    format: Format

    def open(self) -> Task:
        """Memory that the shards are made in, one after the other.

        The task takes the names of some output shards, a line each, and hands out (name, SHA-256) of every one that is
        safe on the disk. It raises ShardError where an input changed after it was scored, or cannot be read, and
        CuveeError where the disk is full.
        """
        room = Room(2 * WINDOW_BYTES)

        def write(names: str) -> Iterator[tuple[str, str]]:
            for name in names.split("\n"):
                yield name, self._made(name, room)

        return write

    def _made(self, name: str, room: Room) -> str:
        """Write one output shard; its SHA-256."""
        shard = Path(self.staging) / name
        with pq.ParquetFile(self.plan) as plan:
            planned = read_planned(plan.read_row_group(self.groups[name], use_threads=False))
        with replacing(shard) as temporary:
            digest = self.format.write_blocks(temporary, self._blocks(planned, room), len(planned.keys))
            self.format.annotate(temporary, shard)
        return digest

    def _blocks(self, planned: Planned, room: Room) -> Iterator[Block]:
        """One after the other in the same memory."""
        scores = self._scores(planned)
        for window in planned.windows():
            along = [
                {**scores.get((place, row), {}), **given}
                for place, row, given in zip(window.places, window.rows, window.given, strict=True)
            ]
            block = window.block(along, room)
            self._fill(window, block)
            yield block

    def _fill(self, window: Planned, block: Block) -> None:
        """Read every member to its place and hold it against what was scored.

        Raises:
            ShardError: a shard changed after it was indexed.
        """
        jobs = [(self.containers[place], of_place) for place, of_place in window.targets(block).items()]
        if any(is_url(path) for path, _ in jobs):
            with ThreadPoolExecutor(REMOTE_READERS) as readers:
                list(readers.map(_read, jobs))
        else:
            for job in jobs:
                _read(job)
        block.clear_padding()
        if (other := window.differing(block)) is not None:
            raise changed(self.containers[other])

    def _scores(self, planned: Planned) -> dict[tuple[str, int], dict[str, Any]]:
        """(place, row) -> the score columns that go along."""
        found: dict[tuple[str, int], dict[str, Any]] = {}
        workspace = Workspace(Path(self.workspace))
        rows: dict[str, set[int]] = {}
        for place, row in zip(planned.places, planned.rows, strict=True) if self.columns else ():
            rows.setdefault(place, set()).add(row)
        for place, of_shard in rows.items():
            numbers = sorted(of_shard)
            digest, _, source = place.rpartition("/")
            for column, addresses in sorted(self.columns.items()):
                path = workspace.sidecar(addresses[source], digest)
                values = read_table(path, [column])[column].take(pa.array(numbers))
                for number, value in zip(numbers, values.to_pylist(), strict=True):
                    found.setdefault((place, number), {})[column] = rounded(value)
        return found


def _read(job: tuple[str, list[Target]]) -> None:
    """Members that lie in one container."""
    path, targets = job
    with open_ranges(path) as container:
        container.fill(targets)

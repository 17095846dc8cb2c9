"""Writes one output shard in a worker: byte ranges of the input, checked against what was scored."""

import itertools
from collections.abc import Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.export.block import Block
from pipeline.export.direct import DirectFile, Room, open_direct
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
        """Memory that shards are made in, by turns: while the disk takes one of them, the next one is made.

        The task takes the names of some output shards, a line each, and hands out (name, SHA-256) of every one that is
        safe on the disk. It raises ShardError where an input changed after it was scored, or cannot be read, and
        CuveeError where the disk is full.
        """
        rooms = itertools.cycle([Room(2 * WINDOW_BYTES), Room(2 * WINDOW_BYTES)])

        def write(names: str) -> Iterator[tuple[str, str]]:
            with ThreadPoolExecutor(1) as disk, pq.ParquetFile(self.plan) as plan:
                before: Future[tuple[str, str]] | None = None
                for name in names.split("\n"):
                    with ExitStack() as closing:
                        digest = self._made(name, plan, next(rooms), closing, disk)
                        settled = disk.submit(_settled, closing.pop_all(), (name, digest))
                    if before is not None:
                        yield before.result()
                    before = settled
                if before is not None:
                    yield before.result()

        return write

    def _made(self, name: str, plan: pq.ParquetFile, room: Room, closing: ExitStack, disk: Executor) -> str:
        """Make one output shard; its SHA-256. What is left for the disk is left to `closing`."""
        shard = Path(self.staging) / name
        planned = read_planned(plan.read_row_group(self.groups[name], use_threads=False))
        temporary = closing.enter_context(replacing(shard))
        closing.enter_context(self._annotated(temporary, shard))

        files: list[DirectFile] = []

        def create(path: Path) -> DirectFile:
            files.append(closing.enter_context(open_direct(path, disk)))
            return files[-1]

        blocks = self._blocks(planned, room, files)
        return self.format.write_blocks(temporary, blocks, len(planned.keys), create)

    @contextmanager
    def _annotated(self, written: Path, shard: Path) -> Iterator[None]:
        yield
        self.format.annotate(written, shard)

    def _blocks(self, planned: Planned, room: Room, files: list[DirectFile]) -> Iterator[Block]:
        """One after the other in the same memory, when `files` have taken the one before."""
        scores = self._scores(planned)
        for window in planned.windows():
            for file in files:
                file.finish()
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


def _settled(closing: ExitStack, result: tuple[str, str]) -> tuple[str, str]:
    closing.close()
    return result


def _read(job: tuple[str, list[Target]]) -> None:
    """Members that lie in one container."""
    path, targets = job
    with open_ranges(path) as container:
        container.fill(targets)

"""Writes one output shard in a worker: byte ranges of the input, checked against what was scored."""

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from pipeline.export.format import Format, Sample
from pipeline.fingerprints import rounded
from pipeline.shards.expand import is_url
from pipeline.shards.ranges import Range, open_ranges
from pipeline.shards.rows import content_hash, split_name
from pipeline.sidecars import Workspace, read_table, replacing
from pipeline.tasks import Task
from schemas.columns import CAPTIONS
from schemas.errors import ShardError

WINDOW_BYTES = 128 << 20
"""What is held of an output shard at a time."""
REMOTE_READERS = 16
"""Objects read at the same time: a request to a store is nearly all waiting."""


@dataclass(frozen=True)
class Wanted:
    """One sample of the plan and where its members lie."""

    key: str
    place: str
    digest: str
    row: int
    suffixes: list[str]
    ranges: list[Range]
    content_hash: str | None
    given: dict[str, Any] = field(default_factory=dict)
    """Columns that stand in the plan."""

    @property
    def size(self) -> int:
        """Bytes of all members."""
        return sum(size for _, size in self.ranges)


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
        """Nothing is heavy here."""
        return self.write

    def write(self, names: str) -> Iterator[tuple[str, str]]:
        """Write some output shards, a line each, and hand out (name, SHA-256) of every one that is safe on the disk.

        While a shard is forced to the disk, which can take as long as its making, the next one is made.

        Raises:
            ShardError: an input changed after it was scored, or cannot be read.
            CuveeError: the disk is full.
        """
        with ThreadPoolExecutor(1) as disk:
            before: Future[tuple[str, str]] | None = None
            for name in names.split("\n"):
                with ExitStack() as place:
                    digest = self._made(name, place)
                    settled = disk.submit(_settled, place.pop_all(), (name, digest))
                if before is not None:
                    yield before.result()
                before = settled
            if before is not None:
                yield before.result()

    def _made(self, name: str, place: ExitStack) -> str:
        """Write one output shard under a temporary name, which `place` makes its own; its SHA-256."""
        shard = Path(self.staging) / name
        with pq.ParquetFile(self.plan) as plan:
            planned = wanted(plan.read_row_group(self.groups[name]))
        temporary = place.enter_context(replacing(shard))
        digest = self.format.write(temporary, self._samples(planned), len(planned))
        self.format.annotate(temporary, shard)
        return digest

    def _samples(self, planned: list[Wanted]) -> Iterator[Sample]:
        scores = self._scores(planned)
        for window in _windows(planned):
            members = self._members(window)
            for sample in window:
                found = {**scores.get((sample.place, sample.row), {}), **sample.given}
                yield Sample(sample.key, members[sample.key], found)

    def _members(self, window: list[Wanted]) -> dict[str, list[tuple[str, bytes]]]:
        by_place: dict[str, list[Wanted]] = {}
        for sample in window:
            by_place.setdefault(sample.place, []).append(sample)
        jobs = [(self.containers[place], samples) for place, samples in by_place.items()]
        if any(is_url(path) for path, _ in jobs):
            with ThreadPoolExecutor(REMOTE_READERS) as readers:
                return dict(pair for pairs in readers.map(_read, jobs) for pair in pairs)
        return dict(pair for job in jobs for pair in _read(job))

    def _scores(self, planned: list[Wanted]) -> dict[tuple[str, int], dict[str, Any]]:
        """(place, row) -> the score columns that go along."""
        found: dict[tuple[str, int], dict[str, Any]] = {}
        workspace = Workspace(Path(self.workspace))
        rows: dict[str, set[int]] = {}
        for sample in planned if self.columns else ():
            rows.setdefault(sample.place, set()).add(sample.row)
        for place, of_shard in rows.items():
            numbers = sorted(of_shard)
            digest, _, source = place.rpartition("/")
            for column, addresses in sorted(self.columns.items()):
                path = workspace.sidecar(addresses[source], digest)
                values = read_table(path, [column])[column].take(pa.array(numbers))
                for number, value in zip(numbers, values.to_pylist(), strict=True):
                    found.setdefault((place, number), {})[column] = rounded(value)
        return found


def wanted(planned: pa.Table) -> list[Wanted]:
    """The plan's lines for one output shard."""
    lists = planned["members"].combine_chunks()
    flat = lists.flatten()
    names, offsets, sizes = (flat.field(place).to_pylist() for place in range(3))
    borders = [0, *(lists.value_lengths().fill_null(0).to_numpy().cumsum().tolist())]
    suffixes = [split_name(name)[1] for name in names]
    ranges = list(zip(offsets, sizes, strict=True))
    columns = ("exported_key", "place", "digest", "row", "content_hash")
    facts = zip(*(planned[column].to_pylist() for column in columns), strict=True)
    return [
        Wanted(key, place, digest, row, suffixes[first:stop], ranges[first:stop], expected, given)
        for (key, place, digest, row, expected), given, (first, stop) in zip(
            facts, _given(planned), pairwise(borders), strict=True
        )
    ]


def _given(planned: pa.Table) -> list[dict[str, Any]]:
    if CAPTIONS.name not in planned.schema.names:
        return [{}] * planned.num_rows
    return [{CAPTIONS.name: captions} for captions in planned[CAPTIONS.name].to_pylist()]


def _settled(place: ExitStack, result: tuple[str, str]) -> tuple[str, str]:
    place.close()
    return result


def _windows(planned: list[Wanted]) -> Iterator[list[Wanted]]:
    window: list[Wanted] = []
    size = 0
    for sample in planned:
        window.append(sample)
        size += sample.size
        if size > WINDOW_BYTES:
            yield window
            window, size = [], 0
    if window:
        yield window


def _read(job: tuple[str, list[Wanted]]) -> list[tuple[str, list[tuple[str, bytes]]]]:
    """(key, members sorted by suffix) of samples that lie in one container."""
    path, samples = job
    with open_ranges(path) as container:
        chunks = iter(container.fetch([one for sample in samples for one in sample.ranges]))
    return [
        (sample.key, _checked(sample, list(zip(sample.suffixes, chunks, strict=False)), path)) for sample in samples
    ]


def _checked(sample: Wanted, members: list[tuple[str, bytes]], path: str) -> list[tuple[str, bytes]]:
    """What is exported is what was scored.

    Raises:
        ShardError: the shard changed after it was indexed.
    """
    hashed = ((suffix, len(content), xxhash.xxh3_128_hexdigest(content)) for suffix, content in members)
    if content_hash(hashed) != sample.content_hash:
        raise ShardError(
            f"{path} is not what it was when it was scored; run again to score it as it is now", "shard_changed"
        )
    return sorted(members)

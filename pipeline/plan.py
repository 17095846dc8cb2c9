"""What is missing: each shard's sidecars against the stages of a recipe, before anything is computed."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.fingerprints import INDEX_VERSION, fingerprint
from pipeline.resolve import Input, Resolved
from pipeline.shards import Container, Listings, stamp
from pipeline.sidecars import Workspace
from schemas.errors import ShardError
from schemas.tables import POOL

PASSING = ("missing_shard", "read_failed", "shard_changed", "worker_died")
"""Reasons that may be gone tomorrow: such a shard is looked at again in every run."""


@dataclass(frozen=True)
class Shard:
    """An input shard with what is remembered of it."""

    input: Input
    size: int
    stamp: str
    digest: str | None = None
    samples: int = 0
    reason: str | None = None
    familiar: bool = False
    """Nothing is remembered of this place and time, but another shard of this size was seen: it may have moved."""

    @property
    def reading(self) -> str:
        """Fingerprint of how it is read; a folder that moved with its table is read as before."""
        container = self.input.container
        return fingerprint([INDEX_VERSION, container.format, container.relative_root, container.settings()])

    @property
    def token(self) -> str:
        """Name of its staged work while its digest is not known."""
        return fingerprint([self.input.container.path, self.size, self.stamp, self.reading])

    def row(self) -> dict[str, Any]:
        """Its line in pool.parquet."""
        facts = {"source": self.input.source, "role": self.input.role, "path": self.input.container.path}
        names = ("size", "stamp", "reading", "digest", "samples", "reason")
        return facts | {name: getattr(self, name) for name in names}


@dataclass(frozen=True)
class Work:
    """One row of the scoring graph: a shard seen for the first time, or a run of rows of a known one."""

    container: Container
    token: str
    index_address: str
    digest: str | None
    """None: first sight; scan the shard, digest, index and score in one pass."""
    stages: tuple[str, ...]
    """Kinds that are missing for this shard."""
    slice_number: int = 0
    first_row: int = 0
    rows: int = 0

    def to_json(self) -> dict[str, Any]:
        """As plain values, to travel in a Ray row."""
        return asdict(self)

    @staticmethod
    def from_json(facts: dict[str, Any]) -> "Work":
        """The inverse of `to_json`."""
        return Work(**{**facts, "container": Container(**facts["container"]), "stages": tuple(facts["stages"])})


@dataclass
class Plan:
    """Shards and what each lacks."""

    shards: list[Shard]
    work: list[Work] = field(default_factory=list)
    missing: dict[str, int] = field(default_factory=dict)
    """Per stage kind (and `index`): shards without its sidecar."""

    def reused(self, kind: str) -> int:
        """Shards whose sidecar is there already."""
        return sum(shard.reason is None for shard in self.shards) - self.missing.get(kind, 0)


def observe(resolved: Resolved) -> list[Shard]:
    """Every input shard with its size, stamp and, when it was seen before, digest; no content is read."""
    memory = Memory(resolved.workspace)
    return [memory.observed(item) for item in resolved.inputs]


def identified(resolved: Resolved, shards: list[Shard], digests: Mapping[str, str]) -> list[Shard]:
    """The shards with those recognised whose content is known: moved, renamed, or touched and left as they were.

    Args:
        resolved: the recipe.
        shards: as observed.
        digests: token -> digest by content, of some of them.
    """
    memory = Memory(resolved.workspace)
    return [memory.recognised(shard, digests[shard.token]) if shard.token in digests else shard for shard in shards]


class Memory:
    """What pool.parquet remembers of shards seen before."""

    def __init__(self, workspace: Workspace) -> None:
        rows = workspace.read_pool().to_pylist()
        self.workspace = workspace
        self.listings: Listings = {}
        self.marks = workspace.marks()
        self.by_place = {(row["path"], row["size"], row["stamp"], row["reading"]): row for row in rows}
        self.by_size: dict[tuple[int, str], dict[str, dict[str, Any]]] = {}
        for row in rows:
            if row["digest"] is not None:
                self.by_size.setdefault((row["size"], row["reading"]), {})[row["digest"]] = row

    def observed(self, item: Input) -> Shard:
        """A shard as it stands now, with its digest where it is known."""
        try:
            shard = Shard(item, *stamp(item.container, self.listings))
        except ShardError as error:
            return Shard(item, 0, "", reason=error.reason)
        known = self.by_place.get((item.container.path, shard.size, shard.stamp, shard.reading))
        known = known or self.marks.get(shard.token)
        if known is not None:
            return self._with(shard, known)
        return replace(shard, familiar=(shard.size, shard.reading) in self.by_size)

    def recognised(self, shard: Shard, digest: str) -> Shard:
        """A shard whose content has been digested."""
        known = self.by_size.get((shard.size, shard.reading), {}).get(digest)
        return replace(shard, familiar=False) if known is None else self._with(shard, known)

    def _with(self, shard: Shard, known: Mapping[str, Any]) -> Shard:
        if known.get("reason") is not None:
            return replace(shard, reason=known["reason"])
        if not self.workspace.sidecar(shard.input.index_address, known["digest"]).exists():
            return shard
        return replace(shard, familiar=False, digest=known["digest"], samples=known["samples"])


def make_plan(resolved: Resolved, shards: list[Shard]) -> Plan:
    """Compare what is there with what the recipe needs."""
    plan = Plan(shards)
    seen: set[str] = set()
    for shard in plan.shards:
        if shard.reason is not None:
            continue
        lacking = _lacking(resolved, shard)
        for kind in lacking + ([] if shard.digest else ["index"]):
            plan.missing[kind] = plan.missing.get(kind, 0) + 1
        # Twins by content share their sidecars: the first one's work serves all.
        identity = f"{shard.input.index_address}/{shard.digest or shard.token}"
        if identity not in seen and (lacking or shard.digest is None):
            seen.add(identity)
            plan.work.extend(_work(resolved.workspace, shard, tuple(lacking)))
    return plan


def _lacking(resolved: Resolved, shard: Shard) -> list[str]:
    if shard.digest is None:
        return [stage.name for stage in resolved.stages]
    return [
        stage.name
        for stage in resolved.stages
        if not resolved.workspace.sidecar(resolved.addresses[stage.name], shard.digest).exists()
    ]


def _work(workspace: Workspace, shard: Shard, lacking: tuple[str, ...]) -> Iterator[Work]:
    whole = Work(shard.input.container, shard.token, shard.input.index_address, shard.digest, lacking)
    if shard.digest is None:
        yield whole
        return
    for number, (first, rows) in enumerate(slices(workspace, shard.input.index_address, shard.digest)):
        yield Work(**{**vars(whole), "slice_number": number, "first_row": first, "rows": rows})


def slices(workspace: Workspace, index: str, digest: str) -> list[tuple[int, int]]:
    """(first row, rows) of each slice of a known shard, as its first scan cut them: the index's row groups."""
    groups = pq.ParquetFile(workspace.sidecar(index, digest)).metadata
    cuts, first = [], 0
    for number in range(groups.num_row_groups):
        rows = groups.row_group(number).num_rows
        cuts.append((first, rows))
        first += rows
    return [cut for cut in cuts if cut[1]] or [(0, 0)]


def pool_table(shards: Iterable[Shard], before: pa.Table) -> pa.Table:
    """pool.parquet after a run: this run's shards, and what was remembered of others, sorted."""
    rows = [row for row in before.to_pylist() if row["reason"] not in PASSING]
    rows += [shard.row() for shard in shards if shard.digest is not None or shard.reason not in (None, *PASSING)]
    names = ("source", "role", "path", "size", "stamp", "reading")
    latest = {tuple(row[name] for name in names): row for row in rows}
    return pa.Table.from_pylist([latest[key] for key in sorted(latest)], before.schema)


def snapshot(shards: Iterable[Shard]) -> pa.Table:
    """One line per shard as it stands now, unreadable ones included, sorted; columns as pool.parquet."""
    rows = sorted((shard.row() for shard in shards), key=lambda row: (row["role"], row["source"], row["path"]))
    return pa.Table.from_pylist(rows, POOL)

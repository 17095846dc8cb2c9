"""What is missing: each shard's sidecars against the stages of a recipe, before anything is computed."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
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

    @cached_property
    def reading(self) -> str:
        """Fingerprint of how it is read; a folder that moved with its table is read as before."""
        container = self.input.container
        return fingerprint([INDEX_VERSION, container.format, container.relative_root, container.settings()])

    @cached_property
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
    source: str = ""
    """Whose sidecars are meant, where scores depend on the source."""

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
    places: dict[str, list[int]] = field(default_factory=dict)
    """Token of work -> which of the shards it serves: a file may stand in two sources, or as pool and target."""

    def reused(self, kind: str) -> int:
        """Shards whose sidecar is there already."""
        return sum(shard.reason is None for shard in self.shards) - self.missing.get(kind, 0)


class Memory:
    """What pool.parquet remembers of shards seen before; reads no shard's content."""

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
        """A shard whose content has been digested: moved, renamed, or touched and left as it was; or unknown."""
        known = self.by_size.get((shard.size, shard.reading), {}).get(digest)
        return replace(shard, familiar=False) if known is None else self._with(shard, known)

    def _with(self, shard: Shard, known: Mapping[str, Any]) -> Shard:
        if known.get("reason") is not None:
            return replace(shard, reason=known["reason"])
        if not self.workspace.sidecar(shard.input.index_address, known["digest"]).exists():
            return shard
        return replace(shard, familiar=False, digest=known["digest"], samples=known["samples"])


def make_plan(resolved: Resolved, shards: list[Shard], kinds: Sequence[str] | None = None) -> Plan:
    """Compare what is there with what the recipe needs, of some kinds of stages or of all that wait for no fit."""
    kinds = list(resolved.addresses) if kinds is None else kinds
    plan = Plan(shards)
    seen: set[str] = set()
    by_source = not resolved.by_source.isdisjoint(kinds)
    for number, shard in enumerate(plan.shards):
        if shard.reason is not None:
            continue
        source = shard.input.source if by_source else ""
        token = fingerprint([shard.token, source]) if source else shard.token
        plan.places.setdefault(token, []).append(number)
        lacking = _lacking(resolved, shard, kinds)
        for kind in lacking + ([] if shard.digest else ["index"]):
            plan.missing[kind] = plan.missing.get(kind, 0) + 1
        # Twins by content share their sidecars: the first one's work serves all.
        identity = f"{shard.input.index_address}/{shard.digest or shard.token}/{source}"
        if identity not in seen and (lacking or shard.digest is None):
            seen.add(identity)
            whole = Work(
                shard.input.container, token, shard.input.index_address, shard.digest, tuple(lacking), source=source
            )
            plan.work.extend(_work(resolved.workspace, shard, whole))
    return plan


def _lacking(resolved: Resolved, shard: Shard, kinds: Sequence[str]) -> list[str]:
    if shard.digest is None:
        return list(kinds)
    source, sidecar = shard.input.source, resolved.workspace.sidecar
    return [kind for kind in kinds if not sidecar(resolved.address(kind, source), shard.digest).exists()]


def _work(workspace: Workspace, shard: Shard, whole: Work) -> Iterator[Work]:
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

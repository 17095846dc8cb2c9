"""What is missing: each shard's sidecars against the stages of a recipe, before anything is computed."""

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.fingerprints import fingerprint
from pipeline.resolve import Input, Resolved
from pipeline.shards import Container, stamp
from pipeline.sidecars import Workspace
from schemas.errors import ShardError


@dataclass(frozen=True)
class Shard:
    """An input shard with what is remembered of it."""

    input: Input
    size: int
    stamp: str
    digest: str | None = None
    samples: int = 0
    reason: str | None = None

    @property
    def token(self) -> str:
        """Name of its staged work while its digest is not known: (path, size, stamp, reading settings)."""
        container = self.input.container
        return fingerprint([container.path, self.size, self.stamp, container.format, container.settings()])

    def row(self) -> dict[str, Any]:
        """Its line in pool.parquet."""
        facts = {"source": self.input.source, "role": self.input.role, "path": self.input.container.path}
        return facts | {name: getattr(self, name) for name in ("size", "stamp", "digest", "samples", "reason")}


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
    memory = {(row["path"], row["size"], row["stamp"]): row for row in resolved.workspace.read_pool().to_pylist()}
    return [_observed(item, memory, resolved.workspace) for item in resolved.inputs]


def _observed(item: Input, memory: dict[tuple[str, int, str], dict[str, Any]], workspace: Workspace) -> Shard:
    try:
        size, when = stamp(item.container)
    except ShardError as error:
        return Shard(item, 0, "", reason=error.reason)
    known = memory.get((item.container.path, size, when))
    if known is None:
        return Shard(item, size, when)
    if known["reason"] is not None:
        return Shard(item, size, when, reason=known["reason"])
    if not workspace.sidecar(item.index_address, known["digest"]).exists():
        return Shard(item, size, when)
    return Shard(item, size, when, known["digest"], known["samples"])


def make_plan(resolved: Resolved, shards: list[Shard] | None = None) -> Plan:
    """Compare what is there with what the recipe needs."""
    plan = Plan(observe(resolved) if shards is None else shards)
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
        return [stage.kind for stage in resolved.stages]
    return [
        stage.kind
        for stage in resolved.stages
        if not resolved.workspace.sidecar(resolved.addresses[stage.kind], shard.digest).exists()
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
    rows = {(row["path"], row["size"], row["stamp"]): row for row in before.to_pylist()}
    for shard in shards:
        if shard.digest is not None or shard.reason is not None:
            rows[(shard.input.container.path, shard.size, shard.stamp)] = shard.row()
    return pa.Table.from_pylist([rows[key] for key in sorted(rows)], before.schema)

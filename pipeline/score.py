"""The scoring graph on Ray Data: one row is one work item, never a sample, so no block boundary can mix slices."""

import json
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import pyarrow as pa

from pipeline.cluster import Cluster
from pipeline.plan import Plan, Shard, Work, make_plan, pool_table
from pipeline.resolve import Resolved
from pipeline.sidecars import sweep, write_table
from pipeline.worker import SliceWorker, Toolbox, assemble
from schemas.errors import ContractError, CuveeError
from schemas.tables import INDEX

Progress = Callable[[str, int, int], None]
"""Called with what is being done, samples done and samples known so far."""
REMEMBER_SECONDS = 2.0
"""How often the shards that are finished are written to pool.parquet: what a kill may cost."""


@dataclass
class Scored:
    """What a scoring pass did."""

    shards: list[Shard]
    computed: dict[str, int] = field(default_factory=dict)
    reused: dict[str, int] = field(default_factory=dict)
    samples: dict[str, int] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    """Worker seconds per stage, summed over workers."""
    bytes: int = 0
    """Image bytes read."""


def toolbox(resolved: Resolved) -> Toolbox:
    """What workers need of a resolved recipe."""
    stages = tuple((stage.kind, stage.model_dump(mode="json")) for stage in resolved.stages)
    return Toolbox(str(resolved.workspace.root), stages, resolved.addresses, resolved.plugins)


def score(resolved: Resolved, cluster: Cluster, progress: Progress = lambda *_: None) -> Scored:
    """Compute every missing sidecar; Ray starts only if there is one.

    Raises:
        CuveeError: a worker failed, with the stage, the shard and what to do; finished slices are kept.
    """
    sweep(resolved.workspace.root)
    plan = make_plan(resolved)
    done = Scored(plan.shards)
    for kind in ["index", *(stage.kind for stage in resolved.stages)]:
        done.computed[kind], done.reused[kind] = plan.missing.get(kind, 0), plan.reused(kind)
        done.samples[kind], done.seconds[kind] = 0, 0.0
    try:
        resolved.workspace.drop_staged({item.token for item in plan.work})
        if plan.work:
            _run(cluster.ray, resolved, plan, done, progress)
            resolved.workspace.drop_staged(set())
    finally:
        _remember(resolved, done)
    return done


def _remember(resolved: Resolved, done: Scored) -> None:
    write_table(pool_table(done.shards, resolved.workspace.read_pool()), resolved.workspace.pool)


def _run(ray: Any, resolved: Resolved, plan: Plan, done: Scored, progress: Progress) -> None:
    pending = {item.token: Pending(item) for item in plan.work}
    for item in plan.work:
        if item.digest is not None:
            pending[item.token].expected = max(pending[item.token].expected or 0, item.slice_number + 1)
    total = sum(shard.samples for shard in plan.shards if shard.token in pending)
    finished, remembered = 0, 0.0
    for report in _reports(ray, resolved, plan.work):
        if "error" in report:
            raise CuveeError(report["error"])
        job = pending[report["token"]]
        job.take(report)
        for kind, seconds in report.get("seconds", {}).items():
            done.seconds[kind] += seconds
            done.samples[kind] += report["rows"]
        finished += report.get("rows", 0)
        done.bytes += report.get("bytes", 0)
        progress("scoring", finished, max(total, finished))
        if job.complete():
            outcome = _finish(resolved, job)
            # One token may stand for several inputs: the same file in two sources, or as pool and target.
            done.shards = [replace(s, **outcome) if s.token == job.item.token else s for s in done.shards]
            if time.monotonic() - remembered > REMEMBER_SECONDS:
                _remember(resolved, done)
                remembered = time.monotonic()
    if waiting := [job.item.container.path for job in pending.values() if not job.settled]:
        raise CuveeError(f"scoring ended without {waiting[:3]}; run again: what is finished is kept")


@dataclass
class Pending:
    """One shard on its way through the graph."""

    item: Work
    expected: int | None = None
    """Slices; None until a first scan has ended."""
    slices: set[int] = field(default_factory=set)
    digest: str | None = None
    samples: int = 0
    bad: str | None = None
    settled: bool = False

    def take(self, report: dict[str, Any]) -> None:
        """Note what a report says."""
        if "bad" in report:
            self.bad = report["bad"]
        elif "digest" in report:
            self.digest, self.expected, self.samples = report["digest"], report["slices"], report["samples"]
        else:
            self.slices.add(report["slice"])

    def complete(self) -> bool:
        """Every slice is staged, or the shard turned out unreadable; true once."""
        whole = self.expected is not None and len(self.slices) == self.expected
        if self.settled or not (whole or self.bad is not None):
            return False
        self.settled = True
        return True


def _finish(resolved: Resolved, job: Pending) -> dict[str, Any]:
    """Assemble a shard's sidecars; returns what is now known of it."""
    if job.bad is not None:
        return {"digest": None, "samples": 0, "reason": job.bad}
    digest = job.digest or job.item.digest
    assert digest is not None and job.expected is not None
    place = (job.item.token, digest, job.expected)
    for stage in resolved.stages:
        if stage.kind in job.item.stages:
            assemble(resolved.workspace, resolved.addresses[stage.kind], stage.returns(), place)
    if job.item.digest is None:
        assemble(resolved.workspace, job.item.index_address, INDEX, place)
        return {"digest": digest, "samples": job.samples}
    return {}


def _reports(ray: Any, resolved: Resolved, work: list[Work]) -> Iterator[dict[str, Any]]:
    """Stream the graph's reports.

    One operator of CPU actors does everything on a cluster without GPUs. With GPUs, the CPU operator reads and runs
    the CPU stages, and hands each slice's compressed bytes, as one row, to GPU actors for the rest.
    """
    box = toolbox(resolved)
    gpus = int(ray.cluster_resources().get("GPU", 0))
    cpus = max(1, int(ray.cluster_resources().get("CPU", 1)))
    heavy = _heavy(resolved) if gpus else []
    light = [stage.kind for stage in resolved.stages if stage.kind not in heavy]
    rows = [{"work": json.dumps(item.to_json())} for item in work]
    graph = ray.data.from_items(rows, override_num_blocks=len(rows)).map_batches(
        Reading,
        batch_size=None,
        batch_format="pyarrow",
        fn_constructor_args=(box, light, bool(heavy)),
        num_cpus=1,
        compute=ray.data.ActorPoolStrategy(min_size=1, max_size=min(cpus, len(rows))),
    )
    if heavy:
        graph = graph.map_batches(
            Inferring,
            batch_size=1,  # Ray asks for a number with GPUs; a row is a whole slice, so nothing can be mixed
            batch_format="pyarrow",
            fn_constructor_args=(box, heavy),
            num_gpus=1,
            compute=ray.data.ActorPoolStrategy(min_size=1, max_size=gpus),
        )
    for batch in graph.iter_batches(batch_size=None, batch_format="pyarrow"):
        for text in batch["report"].to_pylist():
            yield json.loads(text)


def _heavy(resolved: Resolved) -> list[str]:
    """GPU stages, and every stage that reads what one of them writes."""
    heavy, written = [], set[str]()
    for stage in resolved.stages:
        if stage.uses_gpu or written & {field.name for field in stage.reads}:
            heavy.append(stage.kind)
            written |= {field.name for field in stage.writes}
    return heavy


class Reading:
    """The first operator: reads work items and runs the CPU stages."""

    def __init__(self, box: Toolbox, kinds: list[str], hands_on: bool) -> None:
        self.worker = SliceWorker(box, kinds)
        self.hands_on = hands_on

    def __call__(self, batch: pa.Table) -> Iterator[dict[str, list[Any]]]:
        """One row of JSON in; a row per slice and shard out, at once when it is done."""
        for text in batch["work"].to_pylist():
            item = Work.from_json(json.loads(text))
            try:
                for report, payload in self.worker.work(item, keep=self.hands_on):
                    yield _row(report | {"work": item.to_json()} if payload else report, payload)
            except Exception as error:
                yield _row({"token": item.token, "error": described(error, item)})


def _row(report: dict[str, Any], payload: bytes | None = None) -> dict[str, list[Any]]:
    return {"report": [json.dumps(report)], "payload": [payload or b""]}


class Inferring:
    """The second operator on a GPU cluster: runs the model stages on slices that were read before."""

    def __init__(self, box: Toolbox, kinds: list[str]) -> None:
        self.worker = SliceWorker(box, kinds)

    def __call__(self, batch: pa.Table) -> Iterator[dict[str, list[Any]]]:
        """Slices in, reports out; a shard's closing report passes through."""
        for text, payload in zip(batch["report"].to_pylist(), batch["payload"].to_pylist(), strict=True):
            report = json.loads(text)
            if payload:
                item = Work.from_json(report.pop("work"))
                try:
                    report = merged(report, self.worker.resume(item, payload, report["slice"]))
                except Exception as error:
                    report = {"token": item.token, "error": described(error, item)}
            yield {"report": [json.dumps(report)]}


def merged(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    """One slice's report from both operators."""
    return {**first, "seconds": first["seconds"] | second["seconds"]}


def described(error: Exception, item: Work) -> str:
    """What the user reads when a worker fails: the fault, the shard, what to do; with a trace for a bug."""
    text = f"{item.container.path}: {error}"
    if isinstance(error, CuveeError) and not isinstance(error, ContractError):
        return text
    trace = "".join(traceback.format_exception(error)[-4:])
    return f"{text}\n{trace}a stage must turn bad samples into a null and a reason; finished slices are kept"

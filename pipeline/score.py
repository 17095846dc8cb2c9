"""Scoring: what is missing goes out to workers, what they report is put together shard by shard."""

import json
import math
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from pipeline.cluster import Cluster
from pipeline.generate import with_generation
from pipeline.graph import graph_reports, heavy_stages
from pipeline.identify import look
from pipeline.learn import learn, waves
from pipeline.plan import Plan, Shard, Work, make_plan, pool_table
from pipeline.resolve import Resolved
from pipeline.sidecars import sweep, write_table
from pipeline.tasks import Task, run_tasks
from pipeline.worker import SliceWorker, Toolbox, assemble_shard, described
from schemas.errors import CuveeError

Progress = Callable[[str, int, int], None]
"""Called with what is being done, samples done and samples known so far."""
REMEMBER_SECONDS = 2.0
"""How often the shards that are finished are written to pool.parquet: what a kill may cost."""


class TooManyBadShardsError(CuveeError):
    """More shards cannot be read than the recipe goes on past."""

    def __init__(self, bad: Sequence[Shard], message: str) -> None:
        super().__init__(message)
        self.bad = bad


@dataclass
class Scored:
    """What a scoring pass did."""

    resolved: Resolved
    """The recipe with the fits of its stages, and so with every address."""
    shards: list[Shard]
    computed: dict[str, int] = field(default_factory=dict)
    reused: dict[str, int] = field(default_factory=dict)
    samples: dict[str, int] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    """Worker seconds per stage, summed over workers."""
    bytes: int = 0
    """Image bytes read."""
    changed: list[str] = field(default_factory=list)
    """Paths of shards whose bytes changed behind an equal size and time."""


def toolbox(resolved: Resolved) -> Toolbox:
    """What workers need of a resolved recipe."""
    stages = tuple(
        (stage.kind, stage.model_dump(mode="json")) for stage in resolved.stages if stage.name in resolved.addresses
    )
    workspace = resolved.workspace
    return Toolbox(
        str(workspace.root),
        stages,
        resolved.addresses,
        resolved.by_source,
        {kind: line["folder"] for kind, line in resolved.fits.items()},
        resolved.plugins,
        workspace.held_by,
    )


def score(
    resolved: Resolved, cluster: Cluster, progress: Progress = lambda *_: None, *, verify: bool = False
) -> Scored:
    """Compute every missing sidecar; Ray starts only if there is one.

    With `verify` no shard is believed to be what its size and time say: all are digested.

    Raises:
        CuveeError: a worker failed, with the stage, the shard and what to do; finished slices are kept.
    """
    sweep(resolved.workspace.root)
    shards, changed = look(resolved, cluster, verify=verify)
    done = Scored(resolved, shards, changed=changed)
    first, *later = waves(resolved.stages)
    try:
        refuse_too_many_bad(resolved.recipe.max_bad_shards, done.shards)
        plan = make_plan(resolved, done.shards, first)
        if not later:  # else slices of later waves may be staged, of shards that lack nothing yet
            resolved.workspace.drop_staged({item.token for item in plan.work})
        _wave(cluster, plan, ["index", *first], done, progress)
        for wave in later:
            done.resolved = learn(done.resolved, done.shards, wave, progress)
            _wave(cluster, make_plan(done.resolved, done.shards, wave), wave, done, progress)
    finally:
        _remember(resolved, done)
        resolved.workspace.drop_empty_marks()
    for counts in (done.computed, done.reused, done.samples, done.seconds):
        in_order = {kind: counts[kind] for kind in ["index", *(stage.name for stage in resolved.stages)]}
        counts.clear()
        counts.update(in_order)  # type: ignore[arg-type]
    return done


def _wave(cluster: Cluster, plan: Plan, kinds: Sequence[str], done: Scored, progress: Progress) -> None:
    """Compute what some kinds of stages lack."""
    for kind in kinds:
        done.computed[kind], done.reused[kind] = plan.missing.get(kind, 0), plan.reused(kind)
        done.samples[kind], done.seconds[kind] = 0, 0.0
    if plan.work:
        _run(cluster, done.resolved, plan, done, progress)
        done.resolved.workspace.drop_staged(set())


def _remember(resolved: Resolved, done: Scored) -> None:
    """Write pool.parquet; what it names needs no mark of its own any more."""
    write_table(pool_table(done.shards, resolved.workspace.read_pool()), resolved.workspace.pool)
    resolved.workspace.drop_marks({shard.token for shard in done.shards if shard.digest is not None})


def _run(cluster: Cluster, resolved: Resolved, plan: Plan, done: Scored, progress: Progress) -> None:
    pending = {item.token: Pending(item) for item in plan.work}
    for item in plan.work:
        if item.digest is not None:
            pending[item.token].expected = max(pending[item.token].expected or 0, item.slice_number + 1)
    box = toolbox(resolved)
    total = sum(plan.shards[number].samples for token in pending for number in plan.places[token])
    finished, remember = 0, time.monotonic() + REMEMBER_SECONDS
    for report in _reports(cluster, resolved, box, plan.work):
        if "error" in report:
            raise CuveeError(report["error"])
        job = pending[report["token"]]
        if not job.take(report):
            continue  # done again after its node was lost
        for kind, seconds in report.get("seconds", {}).items():
            done.seconds[kind] += seconds
            done.samples[kind] += report["rows"]
        finished += report.get("rows", 0)
        done.bytes += report.get("bytes", 0)
        progress("scoring", finished, max(total, finished))
        if job.complete():
            outcome = _finish(resolved, box, job)
            for number in plan.places[job.item.token]:
                done.shards[number] = replace(done.shards[number], **outcome)
            if job.bad is not None:
                refuse_too_many_bad(resolved.recipe.max_bad_shards, done.shards)
            if time.monotonic() > remember:
                began = time.monotonic()
                _remember(resolved, done)
                # A table of a million shards takes a while to write: no more than a tenth of the time.
                remember = time.monotonic() + max(REMEMBER_SECONDS, 9 * (time.monotonic() - began))
    if waiting := [job.item.container.path for job in pending.values() if not job.settled]:
        raise CuveeError(f"scoring ended without {waiting[:3]}; run again: what is finished is kept")


def refuse_too_many_bad(allowed: int | float | None, shards: Sequence[Shard]) -> None:
    """Stop where so many shards cannot be read that something else must be wrong.

    Args:
        allowed: a count, or a share of all shards; None: 1 %, at least 10.
        shards: all of them, as far as they are known.

    Raises:
        TooManyBadShardsError: with the reasons and the first paths.
    """
    bad = [shard for shard in shards if shard.reason is not None]
    default = max(10, math.ceil(0.01 * len(shards)))
    most = default if allowed is None else allowed if isinstance(allowed, int) else math.floor(allowed * len(shards))
    if len(bad) <= most:
        return
    counts = Counter(str(shard.reason) for shard in bad)
    reasons = ", ".join(f"{reason} {count}" for reason, count in sorted(counts.items()))
    paths = ", ".join(sorted(shard.input.container.path for shard in bad)[:3])
    raise TooManyBadShardsError(
        bad,
        f"{len(bad)} of {len(shards)} shards cannot be read ({reasons}), e.g. {paths}; expected at most {most}: "
        "mend the source, or raise `max_bad_shards` in the recipe; what is finished is kept",
    )


@dataclass
class Pending:
    """One shard on its way through the workers."""

    item: Work
    expected: int | None = None
    """Slices; None until a first scan has ended."""
    slices: set[int] = field(default_factory=set)
    digest: str | None = None
    samples: int = 0
    bad: str | None = None
    assembled: bool = False
    settled: bool = False

    def take(self, report: dict[str, Any]) -> bool:
        """Note what a report says; False for a slice that was reported before."""
        if report.get("slice") in self.slices:
            return False
        if "bad" in report:
            self.bad = report["bad"]
        elif "digest" in report:
            self.digest, self.expected, self.samples = report["digest"], report["slices"], report["samples"]
            self.assembled = report.get("assembled", False)
        else:
            self.slices.add(report["slice"])
        return True

    def complete(self) -> bool:
        """Every slice is staged, or the shard turned out unreadable; true once."""
        whole = self.assembled or (self.expected is not None and len(self.slices) == self.expected)
        if self.settled or not (whole or self.bad is not None):
            return False
        self.settled = True
        return True


def _finish(resolved: Resolved, box: Toolbox, job: Pending) -> dict[str, Any]:
    """Assemble a shard's sidecars, unless its worker did; returns what is now known of it."""
    if job.bad is not None:
        return {"digest": None, "samples": 0, "reason": job.bad}
    digest = job.digest or job.item.digest
    assert digest is not None and job.expected is not None
    if not job.assembled:
        place = (job.item.token, digest, job.expected)
        assemble_shard(resolved.workspace, box, resolved.stages, job.item, place)
    return {"digest": digest, "samples": job.samples} if job.item.digest is None else {}


def _reports(cluster: Cluster, resolved: Resolved, box: Toolbox, work: list[Work]) -> Iterator[dict[str, Any]]:
    """Stream the workers' reports; what asks a model that the engine runs is scored after everything else."""
    yield from with_generation(cluster, resolved, box, work, lambda rest: _plain_reports(cluster, resolved, box, rest))


def _plain_reports(cluster: Cluster, resolved: Resolved, box: Toolbox, work: list[Work]) -> Iterator[dict[str, Any]]:
    """From tasks where all work is for CPUs, from a graph where GPUs take a part of it."""
    missing = {kind for item in work for kind in item.stages}
    wants_gpu = any(stage.uses_gpu for stage in resolved.stages if stage.name in missing)
    heavy = heavy_stages(resolved) if wants_gpu and cluster.ray.cluster_resources().get("GPU", 0) >= 1 else []
    items = (json.dumps(item.to_json()) for item in work)
    if heavy:
        yield from graph_reports(cluster.ray, box, heavy, list(items))
    else:
        yield from (report for _, report in run_tasks(cluster, Scoring(box), items, worker_died))


def worker_died(text: str, why: str) -> dict[str, Any]:
    """A shard that no worker lives through, for its images or for want of memory: bad today, tried again next time."""
    return {"token": json.loads(text)["token"], "bad": "worker_died", "message": why}


@dataclass(frozen=True)
class Scoring:
    """Scores work items in a worker."""

    box: Toolbox

    def open(self) -> Task:
        """A worker whose models are loaded once."""
        worker = SliceWorker(self.box)

        def task(text: str) -> Iterator[dict[str, Any]]:
            item = Work.from_json(json.loads(text))
            try:
                yield from (report for report, _ in worker.work(item))
            except Exception as error:
                yield {"token": item.token, "error": described(error, item)}

        return task

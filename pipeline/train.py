"""Trains every arm of a comparison with every seed, in one Ray Train worker group or in this process.

Ray's part is small: ranks share the missing visual tokens, then take whole jobs in turns, and nothing is exchanged
between jobs, so results do not depend on the number of ranks. A job too long for one worker is shared by
`train.workers_per_run` of them, which exchange the connector's gradients (`stages.train.ranks`).

Why `TRAIN_ENVIRONMENT`: an empty `TorchTrainer.fit()` of Ray 2.60 takes 15-23 s on two cores, and 35-90 s where the
libraries have no compiled bytecode. Nothing waits on purpose: it starts seven processes one after another (controller,
autoscaling coordinator, placement group cleaner, synchroniser, preemption watcher, two workers), and each imports
ray.data, ray.train or torch anew. On busy cores the controller's requests to the coordinator also meet their limit of
5 s, twice, while the coordinator still imports, and a worker group can need longer than the 60 s it is given.
"""

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import pyarrow as pa

from pipeline.cluster import Cluster
from pipeline.sidecars import read_json
from schemas.errors import CuveeError
from stages.train.comparison import Comparison, Samples
from stages.train.differences import summary
from stages.train.ranks import ALONE, Ranks
from stages.train.samples import Pair
from stages.train.settings import TrainSettings
from stages.train.workbench import Workbench

Progress = Callable[[str, int, int], None]
"""Called with what is being done, jobs done and jobs in all."""
PAIRS = pa.schema(
    [("key", pa.string()), ("image", pa.large_binary()), ("caption", pa.string()), ("source", pa.string())]
)
ATTEMPTS = 3
"""Worker groups started before lost workers fail the run; what is finished is kept between them."""

# Read by Ray Train in the driver, the controller and the workers; whoever set one before keeps it.
TRAIN_ENVIRONMENT = {
    "RAY_TRAIN_V2_ENABLED": "1",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",  # the default of 2 s is waited twice, also by an empty run
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",  # one process less; a lost worker is noticed and its jobs repeated
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "300",  # imports on busy cores pass the default of 60 s
    "RAY_TRAIN_METRICS_ENABLED": "0",
}


@dataclass(frozen=True)
class Arm:
    """One data set of the comparison."""

    name: str
    shards: tuple[str, ...] = ()
    """Its WebDataset tars, in any order."""
    members: str | None = None
    """Its members.parquet, by which a schedule knows the source of every sample; None: the arm has no schedule."""
    pairs: Callable[[], Iterator[Pair]] | None = None
    """Reads its samples, in place of tars; it is sent to the workers."""
    listed: str | None = None
    """A Parquet file that names the source of every sample, for metrics that ask for it; None: nobody knows."""

    @property
    def samples(self) -> Samples:
        """Where they come from, for a process that runs in another folder."""
        return self.pairs or [os.path.abspath(shard) for shard in self.shards]


def compare(
    settings: TrainSettings,
    arms: Sequence[Arm],
    evaluation: pa.Table,
    folder: Path,
    *,
    seed: int,
    cluster: Cluster | None = None,
    against: str | None = None,
    features: Path | None = None,
    target: pa.Table | None = None,
    progress: Progress = lambda *_: None,
) -> dict[str, Any]:
    """Train one connector per arm and seed, everything but the data equal, and compare them on held-out pairs.

    Args:
        settings: models, budget, rates, number of seeds.
        arms: the data sets; the last one is held against each of the others, unless `against` names an arm.
        evaluation: held-out (key, image, caption), and their source if it is known.
        folder: for finished jobs, checkpoints and connectors; what it holds already is not repeated.
        seed: of the comparison; initial weights and sample order follow from it and the seed's number.
        cluster: where to train; None: in this process.
        against: the arm that each of the others is held against.
        features: folder of visual tokens, which other comparisons may share; default: inside `folder`.
        target: (key, image, caption) that the schedule of `settings` aims at; it steers the arm that has `members`.
        progress: called after each job.

    Returns:
        JSON values: per arm the runs (curve, metrics) and means; paired differences with 95 % t-intervals; the
        held-out set's size; models, steps and seconds. Everything but `seconds`, `speed` and `workers` repeats bit for
        bit on one kind of processor. Where the budget is in tokens, `steps` are those of the longest run.

    Raises:
        CuveeError: unreadable or empty arms, models that do not load, a loss that is not finite, lost workers.
    """
    if len({arm.name for arm in arms}) < len(arms) or not all(arm.name for arm in arms):
        raise CuveeError(f"arms are called {[arm.name for arm in arms]}; give each a name of its own")
    settings.check()
    settings = settings.located()
    samples = {arm.name: arm.samples for arm in arms}
    steered = next(((arm.name, os.path.abspath(arm.members)) for arm in arms if arm.members), None)
    if settings.schedule is None:
        steered = None
    elif steered is None:
        raise CuveeError("`train.schedule` steers the curated arm, and here is none; leave it out")
    comparison = Comparison(settings, samples, folder, features or folder / "features", seed, steered=steered)
    comparison.listed = {arm.name: os.path.abspath(arm.listed) for arm in arms if arm.listed}
    pairs = {"evaluation": _as_pairs(evaluation)}
    if target is not None and steered is not None:
        pairs["target"] = _as_pairs(target)
    start = perf_counter()
    with _watched(comparison, progress):
        workers = _train_here(comparison, pairs) if cluster is None else _train_on(cluster.ray, comparison, pairs)
    results = [read_json(comparison.job_file(job)) for job in comparison.jobs()]
    steps = max(result["log"]["steps"] for result in results)
    return {
        **summary(results, [arm.name for arm in arms], against),
        "settings": settings.identity(),
        "steps": steps,
        "samples_per_run": steps * settings.batch,
        "device": sorted({result["device"] for result in results}),
        "workers": workers,
        "seconds": perf_counter() - start,
        "speed": {
            job.name: read_json(path) for job in comparison.jobs() if (path := comparison.speed_file(job)).exists()
        },
    }


def _as_pairs(table: pa.Table) -> pa.Table:
    if "source" not in table.column_names:
        table = table.append_column("source", pa.nulls(len(table), pa.string()))
    return table.select(PAIRS.names).cast(PAIRS)


def _train_here(comparison: Comparison, pairs: dict[str, pa.Table]) -> int:
    if (together := comparison.settings.workers_per_run) > 1:
        raise CuveeError(f"`workers_per_run` is {together}, and this process is one; train on a cluster")
    comparison.read(**pairs)
    bench = Workbench(comparison)
    for job in bench.pending():
        bench.do(job)
    return 1


def _train_on(ray: Any, comparison: Comparison, pairs: dict[str, pa.Table]) -> int:
    comparison.folder.mkdir(parents=True, exist_ok=True)
    written = {name: comparison.folder / f"{name}.arrow" for name in pairs}
    for name, table in pairs.items():
        with pa.OSFile(str(written[name]), "wb") as sink, pa.ipc.new_file(sink, PAIRS) as writer:
            writer.write_table(table)
    resources = ray.cluster_resources()
    unfinished = sum(not comparison.job_file(job).exists() for job in comparison.jobs())
    gpus = int(resources.get("GPU", 0))
    together, there = comparison.settings.workers_per_run, gpus or int(resources.get("CPU", 1))
    if together > there:
        raise CuveeError(f"`workers_per_run` is {together}, but the cluster has {there} workers; lower it or add nodes")
    workers = together * max(1, min(there // together, unfinished))
    task = {
        "settings": comparison.settings.model_dump(mode="json"),
        "arms": dict(comparison.arms),
        "folder": str(comparison.folder.resolve()),
        "features": str(comparison.features.resolve()),
        "seed": comparison.seed,
        "device": "cuda" if gpus else "cpu",
        "steered": comparison.steered,
        "listed": dict(comparison.listed),
        "pairs": {name: str(path.resolve()) for name, path in written.items()},
    }
    for attempt in range(1, ATTEMPTS + 1):
        if _fit(ray, task, workers, last=attempt == ATTEMPTS):
            break
    return workers


def _fit(ray: Any, task: dict[str, Any], workers: int, *, last: bool) -> bool:
    """Run one worker group; False when workers were lost and another group may go on."""
    for name, value in TRAIN_ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    from ray.train import RunConfig, ScalingConfig, WorkerGroupError
    from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

    kind: Any = DataParallelTrainer
    more: dict[str, Any] = {}
    if task["settings"]["workers_per_run"] > 1:
        # Its process group makes driver and controller import torch too, so only where gradients cross ranks.
        from ray.train.torch import TorchConfig, TorchTrainer

        kind, more = TorchTrainer, {"torch_config": TorchConfig(backend="nccl" if task["device"] == "cuda" else "gloo")}
    trainer = kind(
        _work,
        train_loop_config=task,
        **more,
        scaling_config=ScalingConfig(num_workers=workers, use_gpu=task["device"] == "cuda"),
        run_config=RunConfig(storage_path=str(Path(task["folder"]) / "ray")),
    )
    try:
        trainer.fit()
    except WorkerGroupError as error:
        causes = [_reason(cause) for cause in error.worker_failures.values()]
        if refused := [cause for cause in causes if isinstance(cause, CuveeError)]:
            raise CuveeError(str(refused[0])) from error
        if last or not any(isinstance(cause, ray.exceptions.RayError) for cause in causes):
            raise CuveeError(f"connector training failed: {error}; run again: finished jobs are kept") from error
        return False
    return True


def _reason(failure: Exception) -> Exception:
    """What Ray Train wraps: the exception of our code, or Ray's own where a worker died."""
    for wrapper in ("_base_exc", "cause", "health_check_failure"):
        if isinstance(inner := getattr(failure, wrapper, None), Exception):
            return inner
    return failure


def _work(task: dict[str, Any]) -> None:
    """What one rank does; module-level imports stay light, so the worker imports only what it needs."""
    import ray.train
    from ray.train.collective import barrier

    context = ray.train.get_context()
    rank, ranks = context.get_world_rank(), context.get_world_size()
    settings = TrainSettings.model_validate(task["settings"])
    if task["device"] == "cuda":  # the ranks of a node see all its GPUs
        import torch

        torch.cuda.set_device(context.get_local_rank() % torch.cuda.device_count())
    folder, features = Path(task["folder"]), Path(task["features"])
    steered = task["steered"] and tuple(task["steered"])
    comparison = Comparison(settings, task["arms"], folder, features, task["seed"], task["device"], steered)
    comparison.listed = task["listed"]
    comparison.read(part=rank, parts=ranks, **{name: _table(path) for name, path in task["pairs"].items()})
    barrier()  # every rank's visual tokens are there
    bench = Workbench(comparison)
    pending = bench.pending()
    barrier()  # nobody finishes a job before all have listed what is pending
    team, teams, together = _teams(rank, ranks, settings.workers_per_run)
    for first in range(0, len(pending), teams):
        mine = pending[first + team : first + team + 1]
        for job in mine:
            bench.do(job, together)
        # Every rank reports once per round: Ray Train waits for all of them.
        ray.train.report({"jobs": [job.name for job in mine]})


def _teams(rank: int, ranks: int, size: int) -> tuple[int, int, Ranks]:
    """This rank's team, how many there are, and its place in it; a team shares one run."""
    if size == 1:
        return rank, ranks, ALONE
    import torch.distributed as dist

    groups = [dist.new_group(list(range(first, first + size))) for first in range(0, ranks, size)]
    team, place = divmod(rank, size)
    return team, len(groups), Ranks(place, size, groups[team])


def _table(path: str) -> pa.Table:
    with pa.OSFile(path, "rb") as source:
        return pa.ipc.open_file(source).read_all()


@contextmanager
def _watched(comparison: Comparison, progress: Progress) -> Iterator[None]:
    """Tell `progress` how many jobs have their file, twice a second while the block runs and once after it."""
    jobs, ended = comparison.jobs(), threading.Event()

    def tell() -> None:
        progress("train", sum(comparison.job_file(job).exists() for job in jobs), len(jobs))

    def watch() -> None:
        while not ended.wait(0.5):
            tell()

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        watcher.join()
        tell()

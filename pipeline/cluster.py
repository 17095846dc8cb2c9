"""Starts or joins a Ray cluster so that its logs stay out of ours and its workers import this very package."""

import contextlib
import hashlib
import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from schemas.errors import CuveeError
from stages.clusters import NO_INDEX_ON_GPU

PACKAGE_ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("schemas", "stages", "pipeline", "jobs")

# Ray reads these when it is imported or started; whoever set one before keeps it.
QUIET = {
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",  # under `uv run` each worker would be relaunched through uv
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # keeps CUDA_VISIBLE_DEVICES as the user set it
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    "RAY_TRAIN_ENABLE_STATE_TRACKING": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_task_oom_retries": "3",  # without it a task that never fits into memory is tried for ever
}
WORKER_ENVIRONMENT = {
    # Workers are many and each owns one core: a thread pool in each would only fight the others, and the number
    # of threads changes the bits of a float sum.
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "POLARS_MAX_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    NO_INDEX_ON_GPU: "1",  # Ray hides no GPU from tasks that were given none
}


class Cluster:
    """A Ray cluster that is joined or started when it is first needed, and left when the block ends.

    Ray's start takes seconds; a run that has nothing to compute never pays them.
    """

    def __init__(self, address: str | None = None, workers: int | None = None) -> None:
        """`address` of a running cluster, else a local one of `workers` CPUs (default: all)."""
        self.address = address
        self.workers = workers
        self._ray: Any = None
        self._own = False
        self._aside = contextlib.ExitStack()

    @property
    def started(self) -> bool:
        """Whether Ray was needed."""
        return self._ray is not None

    @property
    def ray(self) -> Any:
        """The `ray` module, connected.

        Raises:
            CuveeError: no cluster at the address, or its workers import other packages of our names.
        """
        if self._ray is None:
            for name, value in QUIET.items():
                os.environ.setdefault(name, value)
            import ray

            if not ray.is_initialized():
                _connect(ray, self.address, self.workers)
                self._own = True
                self._aside.enter_context(core_noise_aside(ray))
            self._ray = ray
            refuse_strangers(ray)
        return self._ray

    def __enter__(self) -> "Cluster":
        return self

    def __exit__(self, *_: object) -> None:
        if self._own:
            self._ray.shutdown()
        self._aside.close()


def _connect(ray: Any, address: str | None, workers: int | None) -> None:
    address = address or os.environ.get("RAY_ADDRESS")
    # "local" is a cluster of our own, even where another one happens to run on this machine.
    own = {"address": "local", "num_cpus": workers, "include_dashboard": False}
    options: dict[str, Any] = {"address": address} if address else own
    runtime = {"env_vars": {**WORKER_ENVIRONMENT, **_path_for_workers()}}
    try:
        # Ray puts the driver's working directory first on every worker's path; a user's folder may hold packages
        # called `stages` or `pipeline`. From here it finds ours.
        with contextlib.chdir(PACKAGE_ROOT):
            ray.init(
                **options, logging_level=logging.ERROR, log_to_driver=False, configure_logging=True, runtime_env=runtime
            )
    except ConnectionError as error:
        raise CuveeError(f"no Ray cluster answers at {address!r}: {error}; start one or leave --address out") from error
    # Importing ray.data sets up its loggers; only then can they be quieted.
    import ray.data as ray_data

    context = ray_data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    for name in ("ray", "ray.data"):
        logging.getLogger(name).setLevel(logging.ERROR)
        for handler in logging.getLogger(name).handlers:
            if isinstance(handler, logging.StreamHandler) and not isinstance(handler, logging.FileHandler):
                handler.setLevel(logging.ERROR)


@contextlib.contextmanager
def core_noise_aside(ray: Any) -> Iterator[None]:
    """Ray's C++ core writes to file descriptor 2 whatever the log level; it goes to a file among Ray's own logs."""
    if sys.stderr is not sys.__stderr__:  # somebody captures it already
        yield
        return
    folder = Path(ray._private.worker._global_node.get_logs_dir_path())
    ours, outer = os.dup(2), sys.stderr
    with open(folder / "cuvee-driver.err", "ab") as log, os.fdopen(os.dup(2), "w", buffering=1) as terminal:
        sys.stderr = terminal
        os.dup2(log.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(ours, 2)
            os.close(ours)
            sys.stderr = outer


def _path_for_workers() -> dict[str, str]:
    """A checkout that is not installed (`ray job submit --working-dir .`) travels by PYTHONPATH, not by install."""
    return {"PYTHONPATH": os.environ["PYTHONPATH"]} if "PYTHONPATH" in os.environ else {}


def package_digest(root: Path) -> str:
    """SHA-256 over the Python files of our four packages below `root`, by relative path."""
    digest = hashlib.sha256()
    for package in PACKAGES:
        for file in sorted((root / package).rglob("*.py")):
            digest.update(f"{file.relative_to(root).as_posix()}\0".encode() + file.read_bytes())
    return digest.hexdigest()


def refuse_strangers(ray: Any) -> None:
    """Ask one worker per node which packages it imports.

    Raises:
        CuveeError: naming the node, the folder it imports from and the folder expected.
    """
    expected = package_digest(PACKAGE_ROOT)
    nodes = [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU")]
    for node, answer in [(node, _ask(ray, node["NodeID"])) for node in nodes]:
        try:
            root, found = ray.get(answer)
        except ray.exceptions.RayError:  # the node went away while it was asked
            continue
        if found != expected:
            raise CuveeError(
                f"workers on node {node['NodeManagerAddress']} import `pipeline` from {root or 'nowhere'}, not cuvee's "
                f"own packages as in {PACKAGE_ROOT}; install the same cuvee there, or take the folder that holds "
                "packages named pipeline, stages, schemas or jobs off the workers' path"
            )


def _ask(ray: Any, node: str) -> Any:
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    # Nested, so that it travels by value: a worker that imports a stranger must still be able to answer.
    def imported() -> tuple[str, str]:
        import hashlib
        import importlib.util
        from pathlib import Path

        spec = importlib.util.find_spec("pipeline")
        if spec is None or not spec.submodule_search_locations:
            return "", ""
        root = Path(next(iter(spec.submodule_search_locations))).parent
        digest = hashlib.sha256()
        for package in packages:
            for file in sorted((root / package).rglob("*.py")):
                digest.update(f"{file.relative_to(root).as_posix()}\0".encode() + file.read_bytes())
        return str(root), digest.hexdigest()

    packages = PACKAGES
    placed = NodeAffinitySchedulingStrategy(node, soft=False)
    return ray.remote(imported).options(num_cpus=0, scheduling_strategy=placed).remote()

"""Runs pieces of work as Ray core tasks: a few in flight per core, results as they come, a dead worker's piece again.

Core tasks and not Ray Data wherever all work is of one kind: a graph's start and its actors cost seconds, which is all
that an incremental run or an export takes. `graph.py` is for what streams between CPUs and GPUs.
"""

import gc
import itertools
import traceback
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol, TypeVar
from uuid import uuid4

from pipeline.cluster import Cluster
from schemas.errors import CuveeError
from stages.rule import Mapper

IN_FLIGHT_PER_CPU = 4
RETRIES = 3
"""Of a piece whose worker or node died. Workers killed for want of memory are counted by Ray, see cluster.py."""

Piece = TypeVar("Piece")
Result = TypeVar("Result")
Task = Callable[[str], Iterator[Any]]
"""A piece's name -> results, each sent back at once."""


class Stream(Protocol):
    """Does independent pieces of work somewhere, as `Mapper` does; but each result comes when it is asked for.

    Whoever adds results up holds one of them, however many pieces there are. `map` is one, in this process.
    """

    def __call__(self, function: Callable[[Piece], Result], pieces: Iterable[Piece], /) -> Iterator[Result]:
        """`function` of each piece, in the order of the pieces."""
        ...


class Job(Protocol):
    """What a worker needs, as plain values that travel."""

    def open(self) -> Task:
        """Load what is heavy; once per worker."""
        ...


def run_tasks(
    cluster: Cluster,
    job: Job,
    names: Iterable[str],
    given_up: Callable[[str, str], Any] | None = None,
    *,
    gpus: int = 0,
) -> Iterator[tuple[str, Any]]:
    """Do every named piece in some worker; yields (name, result) in the order in which they come.

    Args:
        cluster: where.
        job: what the workers do.
        names: of the pieces; one that stands for several things has a line for each.
        given_up: makes a result from the name of a piece whose workers died again and again, and why; default: raise.
        gpus: that a piece needs.

    Raises:
        CuveeError: a piece failed, with what it said or where it broke, or was given up; what is finished is kept.
    """
    waiting = iter(names)
    if (first := next(waiting, None)) is None:
        return  # nothing to do is no reason to start Ray
    waiting = itertools.chain([first], waiting)
    ray = cluster.ray
    task = ray.remote(num_cpus=1, num_gpus=gpus, max_retries=RETRIES, num_returns="streaming")(_results)
    key, shared = uuid4().hex, ray.put(job)
    most = IN_FLIGHT_PER_CPU * max(1, int(ray.cluster_resources().get("CPU", 1)))
    running: dict[Any, str] = {}
    lost: Counter[str] = Counter()
    while True:
        while len(running) < most and (name := next(waiting, None)) is not None:
            running[task.remote(key, [shared], name)] = name
        if not running:
            return
        (stream,), _ = ray.wait(list(running), num_returns=1)
        name = running[stream]
        try:
            result, fault = ray.get(next(stream))
        except StopIteration:
            del running[stream]
            continue
        except ray.exceptions.RayError as error:
            del running[stream]
            lost[name] += 1
            of_piece = (ray.exceptions.WorkerCrashedError, ray.exceptions.OutOfMemoryError)
            if not isinstance(error, of_piece) and lost[name] <= RETRIES:
                # Not the piece's fault: its node went away, with or without results that had not been fetched.
                waiting = itertools.chain([name], waiting)
                continue
            yield name, (given_up or _refuse)(name, f"{type(error).__name__}: {str(error)[:500]}")
            continue
        if fault is not None:
            raise CuveeError(fault)
        yield name, result


def _refuse(name: str, why: str) -> Any:
    what = ", ".join(name.splitlines())
    raise CuveeError(
        f"{what}: its workers died {RETRIES + 1} times, last by {why}; give them more memory or have fewer at a time "
        "(--workers), then run again: what is finished is kept"
    )


def on_cluster(cluster: Cluster) -> Mapper:
    """A mapper that does pieces as tasks, see `streaming`."""
    return listed(streaming(cluster))


def listed(stream: Stream) -> Mapper:
    """The mapper that holds all results of the stream."""

    def gather(function: Callable[[Any], Any], pieces: Iterable[Any], /) -> list[Any]:
        return list(stream(function, pieces))

    return gather


def streaming(cluster: Cluster) -> Stream:
    """Does pieces as tasks, a few in flight per core; Ray starts when the first result is asked for."""

    def spread(function: Callable[[Any], Any], pieces: Iterable[Any], /) -> Iterator[Any]:
        ray = cluster.ray
        task = ray.remote(num_cpus=1, max_retries=RETRIES)(_applied)
        most = IN_FLIGHT_PER_CPU * max(1, int(ray.cluster_resources().get("CPU", 1)))
        shared = ray.put(function)
        running: deque[Any] = deque()
        for piece in pieces:
            if len(running) == most:
                yield _fetched(ray, running.popleft())
            running.append(task.remote([shared], piece))
        while running:
            yield _fetched(ray, running.popleft())

    return spread


def _applied(shared: list[Any], piece: Any) -> tuple[Any, str | None]:
    import ray

    try:
        return ray.get(shared[0])(piece), None
    except CuveeError as error:  # as text: a pickled exception would lose its words to Ray's trace
        return None, str(error)


def _fetched(ray: Any, ref: Any) -> Any:
    try:
        result, fault = ray.get(ref)
    except ray.exceptions.RayError as error:
        raise CuveeError(f"a piece of the work failed on the cluster: {error}; what is finished is kept") from error
    if fault is not None:
        raise CuveeError(fault)
    return result


_opened: tuple[str, Task] | None = None
"""The job this worker process has open; opening another one lets go of it and of its models."""


def _results(key: str, shared: list[Any], name: str) -> Iterator[tuple[Any, str | None]]:
    job: Job | None = None
    if _opened is None or _opened[0] != key:
        import ray

        job = ray.get(shared[0])  # outside: where its node went away, another try gets it
    try:
        for result in _task(key, job)(name):
            yield result, None
    except CuveeError as error:  # as text: a pickled exception would lose its words to Ray's trace
        yield None, str(error)
    except Exception as error:
        yield None, "".join([f"{name}: ", *traceback.format_exception(error)[-4:]])


def _task(key: str, job: Job | None) -> Task:
    """What this process has open; `job`, if given, takes its place."""
    global _opened
    if job is not None:
        if _opened is not None:
            _opened = None
            gc.collect()
        # What is imported by now stays: to walk it again and again took a sixth of the time of writing a shard.
        gc.freeze()
        _opened = key, job.open()
    assert _opened is not None
    return _opened[1]

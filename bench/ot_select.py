"""`got_d` (and on the CPU `tsds`) at size: seconds, memory, and how time grows with the pool.

    OMP_NUM_THREADS=1 python bench/ot_select.py --rows 100000 300000 1000000 --rounds 1 10 --processes 2
    python bench/ot_select.py --device cuda --rows 1000000 --rounds 1 10

On the CPU the rule itself judges Parquet files of unit embeddings, in parts of 125,000 rows that processes of their own
take one by one: reading, learning, every pass, the ranking and the evidence are in the time; writing the files is not.
On a GPU the same potentials are learned and extended to rows that stand in memory in half precision, copied over once
a pass; that needs numpy, POT and torch alone, and the first block is compared with the CPU's bits.
"""

import argparse
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from stages.transport.distances import c_transform, c_transform_on  # noqa: E402  found beside this file
from stages.transport.gradients import Proxy, Round, learned_round  # noqa: E402

WIDTH = 512
PART_ROWS = 125_000
TARGET_ROWS = 5000
CLUSTERS = 200
ATOMS, BATCHES, SHARE = 1000, 4, 0.5
KEPT = 0.1

Rows = npt.NDArray[np.float16]


def embeddings(rows: int, seed: int, first: int, last: int) -> Rows:
    """Unit rows around the clusters from `first` to `last`, of all the centres there are."""
    noise = np.random.default_rng(seed)
    centres = np.random.default_rng(0).normal(size=(CLUSTERS, WIDTH)).astype(np.float32)
    found = np.empty((rows, WIDTH), np.float16)
    for at in range(0, rows, 10_000):
        values = noise.standard_normal((min(10_000, rows - at), WIDTH), np.float32)
        values += centres[noise.integers(first, last, len(values))]
        found[at : at + len(values)] = values / np.linalg.norm(values, axis=1, keepdims=True)
    return found


def write_parts(rows: int, folder: Path) -> None:
    """The pool as Parquet files, in uid order."""
    import polars as pl
    import pyarrow as pa

    for part, at in enumerate(range(0, rows, PART_ROWS)):
        matrix = embeddings(min(PART_ROWS, rows - at), part + 1, 0, CLUSTERS)
        values = pa.FixedSizeListArray.from_arrays(pa.array(matrix.ravel()), WIDTH).cast(pa.list_(pa.float16()))
        uids = [f"{at + number:032x}" for number in range(len(matrix))]
        table = pa.table({"uid": uids, "source": ["pool"] * len(uids), "image_embedding": values})
        frame = pl.from_arrow(table)
        assert isinstance(frame, pl.DataFrame)
        frame.write_parquet(folder / f"{part:05d}.parquet")


class Processes:
    """Does pieces of work in processes that start fresh, functions sent as Ray would send them."""

    def __init__(self, count: int) -> None:
        from concurrent.futures import ProcessPoolExecutor
        from multiprocessing import get_context

        self.pool = ProcessPoolExecutor(count, get_context("spawn"))

    def __call__(self, function: Callable[[Any], Any], pieces: Iterable[Any], /) -> list[Any]:
        from ray import cloudpickle

        dumps: Callable[[Any], bytes] = cloudpickle.dumps
        sent = dumps(function)
        return list(self.pool.map(_do, ((sent, dumps(piece)) for piece in pieces)))


def _do(sent: tuple[bytes, bytes]) -> Any:
    from ray import cloudpickle

    return cloudpickle.loads(sent[0])(cloudpickle.loads(sent[1]))


def on_cpu(kind: str, rows: int, rounds: int, processes: int, folder: Path) -> dict[str, Any]:
    """One verdict by the rule."""
    import polars as pl

    from stages.rule import Context
    from stages.selector import Selector
    from stages.target.got_d import GotD
    from stages.target.tsds import Tsds

    parts = tuple(pl.scan_parquet(path) for path in sorted(folder.glob("*.parquet")))
    target = pl.DataFrame({"uid": [f"{n:032x}" for n in range(TARGET_ROWS)], "source": ["target"] * TARGET_ROWS})
    column = pl.Series("image_embedding", embeddings(TARGET_ROWS, 10_000, 0, CLUSTERS // 10).tolist())
    target = target.with_columns(column.cast(pl.List(pl.Float16)))
    rule: Selector = (
        GotD.model_validate({"fraction": KEPT, "rounds": rounds})
        if kind == "got_d"
        else Tsds.model_validate({"fraction": KEPT})
    )
    workers = Processes(processes)
    workers(abs, [-1] * processes * 4)  # started before the clock is
    used = sum(map(cpu_seconds, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)))
    began = time.perf_counter()
    verdict = rule.judge(pl.concat(parts), Context(0, target.lazy(), parts=parts, map=workers))
    seconds = time.perf_counter() - began
    workers.pool.shutdown()
    cpu = sum(map(cpu_seconds, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))) - used
    return {"seconds": seconds, "cpu": cpu, "kept": rows - len(verdict.dropped), **verdict.evidence["transport"]}


def on_gpu(rows: int, rounds: int) -> dict[str, Any]:
    """The rule's steps as plain functions on arrays: learn, extend, cut, once a round."""
    import torch

    pool, target = embeddings(rows, 1, 0, CLUSTERS), embeddings(TARGET_ROWS, 10_000, 0, CLUSTERS // 10)
    atoms, order = target[:ATOMS], np.random.default_rng(1).permutation(rows)
    c_transform_on("cuda", pool[:1000], atoms, np.zeros(len(atoms)))  # the device is awake before the clock is
    torch.cuda.synchronize()
    began = time.perf_counter()
    taken, extending = np.zeros(rows, np.bool_), 0.0
    for number in range(rounds):
        chosen = pool[np.flatnonzero(taken)[:ATOMS]] if number else None
        proxy = Proxy(pool[order[: ATOMS * BATCHES]], chosen, SHARE * number / rounds)
        step: Round = learned_round(proxy, atoms, BATCHES, 1, 0.0)
        clock = time.perf_counter()
        potentials = c_transform_on("cuda", pool, atoms, step.potentials)
        extending += time.perf_counter() - clock
        gradient = np.where(taken, np.inf, step.calibrated(potentials))
        quota = (number + 1) * int(KEPT * rows) // rounds - int(taken.sum())
        taken[np.argpartition(gradient, quota - 1)[:quota]] = True
    seconds = time.perf_counter() - began
    same = bool((c_transform(pool[:2000], atoms, step.potentials) == potentials[:2000]).all())
    return {"seconds": seconds, "extending": extending, "same bits": same, "device": torch.cuda.get_device_name()}


def cpu_seconds(who: int) -> float:
    """Of this process, or of its children that have ended (their start and imports included)."""
    used = resource.getrusage(who)
    return used.ru_utime + used.ru_stime


def memory() -> Iterator[str]:
    """Peak memory of this process, and of the largest of its children."""
    for who, name in ((resource.RUSAGE_SELF, "driver"), (resource.RUSAGE_CHILDREN, "largest worker")):
        yield f"{name} {resource.getrusage(who).ru_maxrss / 2**20:.2f} GB"


def main() -> None:
    """Measure each size, then the exponent between the smallest and the largest."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--rows", type=int, nargs="+", default=[100_000])
    options.add_argument("--rounds", type=int, nargs="+", default=[1])
    options.add_argument("--kinds", nargs="+", default=["got_d"], choices=["got_d", "tsds"])
    options.add_argument("--processes", type=int, default=2)
    options.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    given = options.parse_args()
    if given.device == "cuda" and given.kinds != ["got_d"]:
        options.error("on a GPU only got_d is measured")
    seconds: dict[tuple[str, int], dict[int, float]] = {}
    for rows in sorted(given.rows):
        with tempfile.TemporaryDirectory() as folder:
            if given.device == "cpu":
                write_parts(rows, Path(folder))
            for kind in given.kinds:
                for rounds in given.rounds if kind == "got_d" else [1]:
                    if given.device == "cuda":
                        found = on_gpu(rows, rounds)
                    else:
                        found = on_cpu(kind, rows, rounds, given.processes, Path(folder))
                    seconds.setdefault((kind, rounds), {})[rows] = found["seconds"]
                    print(f"{kind}, {rows} rows, {rounds} rounds: {found}; peak {', '.join(memory())}", flush=True)
                    if not found.get("same bits", True):
                        sys.exit("the GPU's potentials are not those of the CPU")
    for (kind, rounds), taken in seconds.items():
        small, large = min(taken), max(taken)
        if small < large:
            exponent = np.log(taken[large] / taken[small]) / np.log(large / small)
            print(f"{kind}, {rounds} rounds: time grows with exponent {exponent:.2f} from {small} to {large}")


if __name__ == "__main__":
    main()

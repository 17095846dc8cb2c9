"""The identity job without cuvee: read every sample of some shards and write it again.

    python bench/export_peer.py webdataset|ray-data|ray-data-decoding|bare|cuvee WARM_UP_FOLDER POOL_FOLDER OUT_FOLDER

Runs on the warm-up pool, then on the other in the same process. Prints one JSON line: seconds and CPU seconds of the
second run (of this process and of all that it started and that live on), and seconds since the process began.

`bare` copies files and looks into none: a process a core reads, takes the SHA-256 of what it read, reads again, writes,
and takes the SHA-256 of what it wrote. No program that reads twice and names both sides by SHA-256 is faster.
"""

import contextlib
import hashlib
import json
import logging
import multiprocessing
import os
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil  # type: ignore[import-untyped]

BEGAN = time.perf_counter()
SAMPLES_PER_SHARD = 1000


def shards(pool: Path) -> list[str]:
    return [str(path) for path in sorted(pool.glob("*.tar"))]


def with_webdataset() -> Callable[[Path, Path], None]:
    import webdataset as wds

    def copy(pool: Path, out: Path) -> None:
        with wds.ShardWriter(str(out / "%05d.tar"), maxcount=SAMPLES_PER_SHARD, maxsize=1 << 40, verbose=0) as writer:
            for sample in wds.WebDataset(shards(pool), shardshuffle=False):
                writer.write(
                    {name: value for name, value in sample.items() if not name.startswith("__") or name == "__key__"}
                )

    return copy


def with_ray_data(decoding: bool) -> Callable[[Path, Path], None]:
    import ray

    ray.init(address="local", num_cpus=os.cpu_count(), include_dashboard=False, logging_level=logging.ERROR)
    ray.data.DataContext.get_current().enable_progress_bars = False

    def copy(pool: Path, out: Path) -> None:
        # None: bytes go through as they are; with False it decodes and encodes as with True.
        data = ray.data.read_webdataset(shards(pool), decoder=decoding or None)
        data.write_webdataset(str(out), encoder=decoding or None)

    return copy


def with_cuvee() -> Callable[[Path, Path], None]:
    from pipeline.cluster import Cluster
    from pipeline.resolve import resolve
    from pipeline.run import run

    cluster = Cluster(workers=os.cpu_count())

    def copy(pool: Path, out: Path) -> None:
        recipe = {
            "name": "identity",
            "workspace": str(out / "work"),
            "pool": [{"source": "photos", "shards": str(pool / "*.tar")}],
            "export": {"kind": "webdataset", "samples_per_shard": SAMPLES_PER_SHARD, "folder": str(out / "export")},
        }
        (out / "recipe.yaml").write_text(json.dumps(recipe))
        run(resolve(out / "recipe.yaml"), cluster)

    return copy


def bare_copy(job: tuple[str, Path]) -> None:
    shard, out = job
    piece = memoryview(bytearray(256 << 10))
    first, second = hashlib.sha256(), hashlib.sha256()
    with open(shard, "rb", buffering=0) as source, open(out / Path(shard).name, "wb", buffering=0) as target:
        while count := source.readinto(piece):
            first.update(piece[:count])
        source.seek(0)
        while count := source.readinto(piece):
            target.write(piece[:count])
            second.update(piece[:count])


def bare() -> Callable[[Path, Path], None]:
    workers = multiprocessing.get_context("fork").Pool(os.cpu_count())

    def copy(pool: Path, out: Path) -> None:
        workers.map(bare_copy, [(shard, out) for shard in shards(pool)], chunksize=1)

    return copy


SYSTEMS = {
    "webdataset": with_webdataset,
    "ray-data": lambda: with_ray_data(decoding=False),
    "ray-data-decoding": lambda: with_ray_data(decoding=True),
    "bare": bare,
    "cuvee": with_cuvee,
}


def cpu_seconds() -> dict[int, float]:
    """CPU time so far of this process and of every one below it, by process id."""
    found = {}
    for process in [psutil.Process(), *psutil.Process().children(recursive=True)]:
        with contextlib.suppress(psutil.Error):
            times = process.cpu_times()
            found[process.pid] = times.user + times.system
    return found


def main() -> None:
    system, warm_up, pool, out = sys.argv[1], *map(Path, sys.argv[2:])
    copy = SYSTEMS[system]()
    for number, folder in enumerate((warm_up, pool)):
        place = out / str(number)
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        before, started = cpu_seconds(), time.perf_counter()
        copy(folder, place)
        seconds = time.perf_counter() - started
        cpu = sum(now - before.get(process, 0.0) for process, now in cpu_seconds().items())
    print(json.dumps({"seconds": seconds, "since_start": time.perf_counter() - BEGAN, "cpu": cpu}))


main()

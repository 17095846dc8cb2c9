"""The identity job without cuvee: read every sample of some shards and write it again.

    python bench/export_peer.py webdataset|ray-data|cuvee WARM_UP_FOLDER POOL_FOLDER OUT_FOLDER

Runs on the warm-up pool, then on the other in the same process. Prints one JSON line: seconds and CPU seconds of the
second run, and seconds since the process began.
"""

import json
import logging
import os
import resource
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path

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


def with_ray_data() -> Callable[[Path, Path], None]:
    import ray

    ray.init(address="local", num_cpus=os.cpu_count(), include_dashboard=False, logging_level=logging.ERROR)
    ray.data.DataContext.get_current().enable_progress_bars = False

    def copy(pool: Path, out: Path) -> None:
        # Without a decoder and an encoder bytes go through as they are (with False it decodes and encodes anew).
        data = ray.data.read_webdataset(shards(pool), decoder=None)
        data.write_webdataset(str(out), encoder=None)

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


SYSTEMS = {"webdataset": with_webdataset, "ray-data": with_ray_data, "cuvee": with_cuvee}


def cpu_seconds() -> float:
    """CPU time of this process and of every child that has ended."""
    found = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in found)


def main() -> None:
    system, warm_up, pool, out = sys.argv[1], *map(Path, sys.argv[2:])
    copy = SYSTEMS[system]()
    for number, folder in enumerate((warm_up, pool)):
        place = out / str(number)
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        started = time.perf_counter()
        copy(folder, place)
        seconds = time.perf_counter() - started
    print(json.dumps({"seconds": seconds, "since_start": time.perf_counter() - BEGAN, "cpu": cpu_seconds()}))


main()

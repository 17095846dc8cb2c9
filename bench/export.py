"""The identity job, score nothing and export everything, beside the loops one would write with webdataset or Ray Data.

    python bench/export.py --rounds 5 SHARD...

Generates a pool of 4,000 samples in four tars from the given shards, and one ten times larger. In each round every
system runs in a process of its own, on the small pool to warm up and then on the large one, which counts; ours digests,
indexes, keeps a ledger and writes a manifest with hashes on the way. `bare` is the floor of any that names what it
reads and writes by SHA-256, see `export_peer.py`; `cp -r` of the large pool stands beside. `ray-data` hands raw bytes
through; `ray-data-decoding`, on demand, decodes and encodes every member, as it does where nothing is said. Prints
medians, ratios, and how many of the pool's bytes the export of a random tenth reads.
"""

import argparse
import io
import itertools
import json
import os
import shutil
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path

SAMPLES = 4000
PER_SHARD = 1000
TIMES = 10
PEER = Path(__file__).with_name("export_peer.py")
SYSTEMS = ("cuvee", "bare", "webdataset", "ray-data", "ray-data-decoding")


def samples(shards: list[str]) -> list[dict[str, bytes]]:
    found: dict[str, dict[str, bytes]] = {}
    for number, shard in enumerate(shards):
        with tarfile.open(shard) as tar:
            for member in tar:
                key, _, suffix = member.name.partition(".")
                found.setdefault(f"{number}-{key}", {})[suffix] = tar.extractfile(member).read()  # type: ignore[union-attr]
    return list(found.values())


def generate(pool: list[dict[str, bytes]], folder: Path, count: int) -> int:
    """Write `count` samples under running keys; returns the bytes of all shards."""
    folder.mkdir(parents=True)
    endless = enumerate(itertools.islice(itertools.cycle(pool), count))
    for number in range(count // PER_SHARD):
        with tarfile.open(folder / f"{number:05d}.tar", "w") as tar:
            for place, sample in itertools.islice(endless, PER_SHARD):
                for suffix, content in sample.items():
                    member = tarfile.TarInfo(f"{place:08d}.{suffix}")
                    member.size = len(content)
                    tar.addfile(member, io.BytesIO(content))
    return sum(path.stat().st_size for path in folder.iterdir())


def measured(system: str, home: Path) -> dict[str, float]:
    out = home / "out"
    command = [sys.executable, str(PEER), system, str(home / "small"), str(home / "large"), str(out)]
    environment = {**os.environ, "PYTHONPATH": str(PEER.parents[1])}
    os.sync()  # nobody pays for what the one before left in the page cache
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    shutil.rmtree(out)
    facts: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return facts


def copied(home: Path) -> float:
    began = time.perf_counter()
    shutil.copytree(home / "large", home / "copy")
    seconds = time.perf_counter() - began
    shutil.rmtree(home / "copy")
    return seconds


def bytes_read_for_a_tenth(home: Path, size: int) -> float:
    """Share of the pool that a worker reads to export a random tenth, by the kernel's count for this process."""
    from pipeline.blend import blend
    from pipeline.cluster import Cluster
    from pipeline.export import blend_draws
    from pipeline.export.plan import PLAN, make_export_plan, read_layout
    from pipeline.export.webdataset import WebDataset
    from pipeline.export.write import WriteShard
    from pipeline.identify import look
    from pipeline.resolve import resolve
    from pipeline.run import run
    from pipeline.select import select
    from pipeline.table import ScoreTable

    recipe = {
        "name": "tenth",
        "workspace": str(home / "work"),
        "pool": [{"source": "photos", "shards": str(home / "large" / "*.tar")}],
        "export": {"kind": "webdataset", "samples": SAMPLES * TIMES // 10, "samples_per_shard": PER_SHARD},
    }
    (home / "tenth.yaml").write_text(json.dumps(recipe))
    resolved = resolve(home / "tenth.yaml")
    with Cluster() as cluster:
        run(resolved, cluster, until="select")
    table = ScoreTable(resolved, tuple(look(resolved)[0]))
    staging = home / "staging"
    chosen = select(table)
    plan = make_export_plan(blend_draws(chosen, blend(chosen)), staging, WebDataset.names, Cluster())
    groups = {name: number for number, name in enumerate(plan.shards)}
    root, path = str(resolved.workspace.root), str(staging / PLAN)
    form = WebDataset(read_layout(staging / PLAN, ()))
    write = WriteShard(root, str(staging), path, groups, plan.containers, {}, form).open()
    before = characters_read()
    for name in plan.shards:
        next(write(name))
    return (characters_read() - before) / size


def characters_read() -> int:
    line = Path("/proc/self/io").read_text().splitlines()[0]
    return int(line.removeprefix("rchar:"))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--systems", nargs="+", default=SYSTEMS[:-1], choices=SYSTEMS)
    parser.add_argument("shards", nargs="+")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        pool = samples(options.shards)
        generate(pool, home / "small", SAMPLES)
        size = generate(pool, home / "large", SAMPLES * TIMES)
        found: dict[str, list[dict[str, float]]] = {}
        copies = []
        for _ in range(options.rounds):
            copies.append(copied(home))
            for system in options.systems:
                found.setdefault(system, []).append(measured(system, home))
        warm = {system: statistics.median(one["seconds"] for one in runs) for system, runs in found.items()}
        cpu = {system: statistics.median(one["cpu"] for one in runs) for system, runs in found.items()}
        cold = {system: statistics.median(one["since_start"] for one in runs) for system, runs in found.items()}
        for system, seconds in warm.items():
            ratio = f"{seconds / warm['cuvee']:5.2f} x ours" if "cuvee" in warm else ""
            ratio += f"  {cpu[system]:5.2f} CPU s {cpu[system] / cpu['cuvee']:5.2f} x ours" if "cuvee" in cpu else ""
            print(f"{system:11} {size / seconds / 1e6:7.1f} MB/s  {ratio}  with start and warm-up {cold[system]:.1f} s")
        print(f"cp -r       {size / statistics.median(copies) / 1e6:7.1f} MB/s")
        print(f"a random tenth is exported by reading {bytes_read_for_a_tenth(home, size):.1%} of the pool's bytes")


main()

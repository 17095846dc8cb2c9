"""CLIP scoring beside a plain open_clip + webdataset DataLoader script: same model, same shards, same scores.

    python bench/scoring.py --model MODEL_DIR --rounds 3 SHARD.tar...           one process, one torch thread each
    python bench/scoring.py --model MODEL_DIR --rounds 3 --run SHARD.tar...     `cuvee run --until score`, all CPUs

The first form times our stage as a plain function over our tar reading (which also digests and indexes the shard)
against the script with 0, 1 and 2 loader processes. The second times whole commands, imports, Ray's start and written
sidecars included, against the script with torch's default threads. Rounds alternate the arms; medians and their ratios
are printed, of wall time and, in the first form, of CPU time, which other work on the machine disturbs less. The mean
scores must agree. The script needs at least as many shards as loader processes.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
Arm = Callable[[], dict[str, Any]]
AGREEMENT = 1e-3
"""Largest difference of the mean score between any two arms."""


def ours(model: str, shards: list[str]) -> dict[str, Any]:
    """The stage as a plain function over our tar reading, in this process."""
    sys.path.insert(0, str(ROOT))
    import pyarrow as pa

    from pipeline.fingerprints import SLICE_BYTES, SLICE_ROWS
    from pipeline.shards import Container, ShardScan
    from stages.alignment.clip.stage import Clip

    stage = Clip(model=model, device="cpu")
    scorer = stage.open()
    began, spent, scores = time.perf_counter(), time.process_time(), []
    for shard in shards:
        for piece in ShardScan(Container(shard, "tar"), SLICE_BYTES, SLICE_ROWS):
            columns = [piece.images, piece.index["caption"].combine_chunks()]
            rows = pa.record_batch(columns, pa.schema(stage.reads))
            for start in range(0, rows.num_rows, stage.batch_rows):
                scores += scorer(rows.slice(start, stage.batch_rows))["clip_score"].to_pylist()
    cpu = time.process_time() - spent
    return {"pairs": len(scores), "seconds": time.perf_counter() - began, "cpu": cpu, "sum": sum(scores)}


def whole_run(model: str, shards: list[str]) -> dict[str, Any]:
    """`cuvee run --until score` in a fresh workspace; only the clip stage."""
    import pyarrow.parquet as pq

    with tempfile.TemporaryDirectory() as folder:
        recipe = {
            "name": "scoring",
            "workspace": "./work",
            "pool": [{"source": "pool", "shards": [str(Path(shard).resolve()) for shard in shards]}],
            "score": [{"kind": "clip", "model": f"local-dir:{Path(model).resolve()}", "device": "cpu"}],
        }
        path = Path(folder) / "recipe.yaml"
        path.write_text(json.dumps(recipe))  # JSON is YAML
        began = time.perf_counter()
        command = [sys.executable, "-m", "pipeline.cli", "run", str(path), "--until", "score", "--json"]
        subprocess.run(command, check=True, cwd=ROOT, capture_output=True)
        total = time.perf_counter() - began
        files = (Path(folder) / "work/scores").glob("clip-*/*.parquet")
        scores = [score for file in files for score in pq.read_table(file)["clip_score"].to_pylist()]
    return {"pairs": len(scores), "total": total, "sum": sum(scores)}


def child(command: list[str]) -> dict[str, Any]:
    """A fresh process of one thread per library; its last line is the answer."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    ran = subprocess.run([sys.executable, *command], check=True, capture_output=True, text=True, env=environment)
    facts: dict[str, Any] = json.loads(ran.stdout.splitlines()[-1])
    return facts


def arms(options: argparse.Namespace) -> tuple[str, dict[str, Arm]]:
    """What is timed, and each side by name, ours first."""
    here = Path(__file__)
    peer = [str(here.with_name("scoring_peer.py")), "--model", options.model]
    threads = os.cpu_count() if options.run else 1
    sides: dict[str, Arm] = {}
    if options.run:
        sides["cuvee run"] = lambda: whole_run(options.model, options.shards)
    else:
        sides["cuvee stage"] = lambda: child([str(here), "--model", options.model, "--alone", *options.shards])
    for workers in options.workers:
        line = [
            *peer,
            "--batch",
            str(options.batch),
            "--workers",
            str(workers),
            "--threads",
            str(threads),
            *options.shards,
        ]
        sides[f"script, {workers} loader processes"] = lambda line=line: child(line)  # type: ignore[misc]
    return ("total" if options.run else "seconds"), sides


def compare(options: argparse.Namespace) -> None:
    """Alternate the arms and print medians, ratios and the spread."""
    measure, sides = arms(options)
    times: dict[str, list[float]] = {name: [] for name in sides}
    cpu: dict[str, list[float]] = {name: [] for name in sides}
    means: dict[str, float] = {}
    for number in range(options.rounds):
        names = list(sides) if number % 2 == 0 else list(sides)[::-1]
        for name in names:
            facts = sides[name]()
            times[name].append(facts[measure])
            cpu[name].append(facts.get("cpu", 0.0))
            means[name] = facts["sum"] / facts["pairs"]
            print(f"round {number + 1}: {name}: {facts[measure]:.1f} s for {facts['pairs']} pairs", file=sys.stderr)
    spread = max(means.values()) - min(means.values())
    assert spread < AGREEMENT, f"the sides do not score alike: {means}"
    print(f"\n{facts['pairs']} pairs, medians of {options.rounds} rounds, mean scores within {spread:.1e}.\n")
    table(times, "wall", facts["pairs"])
    if not options.run:
        table(cpu, "CPU", facts["pairs"])


def table(times: dict[str, list[float]], what: str, pairs: int) -> None:
    """One line a side; the ratio is its median over ours, which stands first."""
    first = statistics.median(next(iter(times.values())))
    print(f"| | {what} s | pairs/s | range s | ours is faster by |\n| --- | --- | --- | --- | --- |")
    for name, found in times.items():
        middle, ends = statistics.median(found), f"{min(found):.1f} to {max(found):.1f}"
        print(f"| {name} | {middle:.1f} | {pairs / middle:.1f} | {ends} | {middle / first:.2f} x |")
    print()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="folder of an open_clip model")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, nargs="*", default=[0, 1, 2], help="loader processes of the script")
    parser.add_argument("--batch", type=int, default=64, help="pairs of the script's forward pass")
    parser.add_argument("--run", action="store_true", help="time whole commands")
    parser.add_argument("--alone", action="store_true", help="our side in this process; prints one JSON line")
    parser.add_argument("shards", nargs="+")
    options = parser.parse_args()
    if options.alone:
        print(json.dumps(ours(options.model, options.shards)))
    else:
        compare(options)


if __name__ == "__main__":
    main()

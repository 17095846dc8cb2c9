"""Peak memory of one worker by the size of the shard it scans, scores and exports from.

    python bench/big_shard.py --gigabytes 0.4 4 -- SHARD...

Generates one tar of each size from the samples of the given shards, has one process scan and score it (image header,
caption, perceptual hash) and another one write it out again, all of it, as a worker does. Prints a JSON line per size.
"""

import argparse
import io
import itertools
import json
import resource
import subprocess
import sys
import tarfile
import tempfile
import time
from dataclasses import replace
from pathlib import Path

SAMPLES_PER_SHARD = 1000
RECIPE = """name: big
workspace: ./work
pool: [{{source: big, shards: {shard}}}]
score: [{{kind: image_header}}, {{kind: caption_text}}, {{kind: perceptual_hash}}]
export: {{kind: webdataset, samples_per_shard: {samples}}}
"""


def generate(shards: list[str], path: Path, size: float) -> None:
    """One tar of at least `size` bytes: the members of the shards over and over, under running keys."""
    members = []
    for shard in shards:
        with tarfile.open(shard) as tar:
            members += [(member.name, tar.extractfile(member).read()) for member in tar]  # type: ignore[union-attr]
    with tarfile.open(path, "w") as tar:
        for again in itertools.count():
            for name, content in members:
                member = tarfile.TarInfo(f"{again:04d}-{name}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
            if tar.offset >= size:
                return


def scan(recipe: Path) -> dict[str, float]:
    from pipeline.identify import look
    from pipeline.plan import make_plan, pool_table
    from pipeline.resolve import resolve
    from pipeline.score import toolbox
    from pipeline.sidecars import write_table
    from pipeline.worker import SliceWorker

    resolved = resolve(recipe)
    shards, _ = look(resolved)
    (item,) = make_plan(resolved, shards).work
    reports = [report for report, _ in SliceWorker(toolbox(resolved)).work(item)]
    known = [replace(shards[0], digest=reports[-1]["digest"], samples=reports[-1]["samples"])]
    write_table(pool_table(known, resolved.workspace.read_pool()), resolved.workspace.pool)
    return {"slices": len(reports) - 1, "samples": reports[-1]["samples"]}


def export(recipe: Path) -> dict[str, float]:
    from pipeline.blend import blend
    from pipeline.cluster import Cluster
    from pipeline.export import blend_draws
    from pipeline.export.plan import PLAN, make_export_plan, read_layout
    from pipeline.export.webdataset import WebDataset
    from pipeline.export.write import WriteShard
    from pipeline.identify import look
    from pipeline.resolve import resolve
    from pipeline.select import select
    from pipeline.table import ScoreTable

    resolved = resolve(recipe)
    table = ScoreTable(resolved, tuple(look(resolved)[0]))
    staging = recipe.parent / "export"
    chosen = select(table)
    plan = make_export_plan(blend_draws(chosen, blend(chosen)), staging, WebDataset.names, Cluster())
    groups = {name: number for number, name in enumerate(plan.shards)}
    root, path = str(resolved.workspace.root), str(staging / PLAN)
    form = WebDataset(read_layout(staging / PLAN, ()))
    write = WriteShard(root, str(staging), path, groups, plan.containers, {}, form).open()
    for name in plan.shards:
        next(write(name))
        (staging / name).unlink()
    return {"output shards": len(groups)}


def child(part: str, recipe: Path) -> None:
    began = time.perf_counter()
    facts = {"scan": scan, "export": export}[part](recipe)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps({**facts, "peak MB": round(peak / 1024), "seconds": round(time.perf_counter() - began, 1)}))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--gigabytes", type=float, nargs="+", default=[0.4, 4.0])
    parser.add_argument("--part", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("shards", nargs="*")
    options = parser.parse_args()
    if options.part:
        child(options.part[0], Path(options.part[1]))
        return
    for size in options.gigabytes:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            generate(options.shards, folder / "big.tar", size * 1e9)
            recipe = folder / "recipe.yaml"
            recipe.write_text(RECIPE.format(shard=folder / "big.tar", samples=SAMPLES_PER_SHARD))
            facts = {"GB": size}
            for part in ("scan", "export"):
                command = [sys.executable, __file__, "--part", part, str(recipe)]
                facts[part] = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
            print(json.dumps(facts), flush=True)


main()

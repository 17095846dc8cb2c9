"""What one percent more shards costs a recipe with CLIP, with fits refitted and with fits pinned.

    python bench/increment.py --model MODEL_DIR --target TARGET_SHARD -- SHARD...

Cuts the samples of the given shards into a hundred small shards, runs the recipe, runs it again unchanged, then with
one more shard: once with everything that is learned from the pool learned anew, once with the first run's fits pinned
(`fits: RUN`), each from a copy of the first workspace. Prints one JSON line: seconds, and the increments as a share of
the first run, with and without what a start costs: Ray, and a model in each worker.
"""

import argparse
import io
import json
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path

SHARDS = 100
RECIPE = """name: living
workspace: {workspace}
pool: [{{source: pool, shards: "pool/*.tar"}}]
target: {{shards: {target}}}
score:
  - {{kind: image_header}}
  - {{kind: caption_text}}
  - {{kind: perceptual_hash}}
  - {{kind: clip, model: "local-dir:{model}"}}
select:
  - {{kind: exact_duplicates}}
  - {{kind: near_duplicate_images, max_distance: 2}}
  - {{kind: semdedup, keep: 0.9}}
  - {{kind: top_fraction, column: clip_score, fraction: 0.7}}
  - {{kind: dsir, target: target, samples: {samples}}}
mix: {{kind: optimal_transport, target: target, max_repeats: 2}}
export: {{kind: webdataset, samples: {samples}}}
{fits}
"""


def cut(shards: list[str], folder: Path) -> int:
    """Write the samples as `SHARDS` + 1 shards of equal size; returns how many each holds."""
    samples: dict[str, dict[str, bytes]] = {}
    for number, shard in enumerate(shards):
        with tarfile.open(shard) as tar:
            for member in tar:
                key, _, suffix = member.name.partition(".")
                samples.setdefault(f"{number}-{key}", {})[suffix] = tar.extractfile(member).read()  # type: ignore[union-attr]
    keys = list(samples)
    each = len(keys) // (SHARDS + 1)
    folder.mkdir()
    for number in range(SHARDS + 1):
        with tarfile.open(folder / f"{number:05d}.tar", "w") as tar:
            for key in keys[number * each : (number + 1) * each]:
                for suffix, content in samples[key].items():
                    member = tarfile.TarInfo(f"{key}.{suffix}")
                    member.size = len(content)
                    tar.addfile(member, io.BytesIO(content))
    return each


def run(recipe: Path) -> tuple[float, str]:
    """Seconds of a run, and its name."""
    began = time.perf_counter()
    command = [sys.executable, "-m", "pipeline.cli", "run", str(recipe), "--json"]
    done = subprocess.run(command, check=True, capture_output=True, cwd=Path(__file__).parents[1])
    return time.perf_counter() - began, json.loads(done.stdout)["run"]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--target", type=Path, required=True)
    parser.add_argument("shards", nargs="+")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        each = cut(options.shards, home / "pool")
        extra = home / "pool" / f"{SHARDS:05d}.tar"
        extra.rename(home / "extra.tar")
        samples = each * SHARDS // 4

        def recipe(workspace: str, fits: str = "") -> Path:
            path = home / f"{workspace}.yaml"
            facts = {"target": options.target.resolve(), "model": options.model.resolve(), "samples": samples}
            path.write_text(RECIPE.format(workspace=f"./{workspace}", fits=fits, **facts))
            return path

        first, made = run(recipe("first"))
        unchanged, _ = run(recipe("first"))
        start, _ = run(recipe_of_one(home, recipe("one"), extra=home / "extra.tar"))
        shutil.copytree(home / "first", home / "pinned")
        (home / "extra.tar").rename(extra)
        refitted, _ = run(recipe("first"))
        pinned, _ = run(recipe("pinned", f"fits: {made}"))
    facts = {"first": first, "unchanged": unchanged, "start": start, "refitted": refitted, "pinned": pinned}
    shares = {f"{kind} share": facts[kind] / first for kind in ("refitted", "pinned")}
    without = {f"{kind} share without start": (facts[kind] - start) / first for kind in ("refitted", "pinned")}
    rounded = {key: round(value, 3) for key, value in {**facts, **shares, **without}.items()}
    print(json.dumps({"pairs": each * SHARDS, "new pairs": each, **rounded}))


def recipe_of_one(home: Path, recipe: Path, extra: Path) -> Path:
    """The same scores on one sample: what a start costs by itself."""
    with tarfile.open(extra) as whole, tarfile.open(home / "one.tar", "w") as one:
        members = whole.getmembers()
        key = members[0].name.partition(".")[0]
        for member in members:
            if member.name.startswith(f"{key}."):
                one.addfile(member, whole.extractfile(member))
    text = recipe.read_text().replace("pool/*.tar", "one.tar")
    recipe.write_text(text[: text.index("select:")].replace("target: ", "# "))
    return recipe


main()

"""Very many very small shards: what planning and a run with nothing to do cost, and the driver's time per slice.

    python bench/shards.py --shards 100000

Generates tars of one pair each, runs a recipe on them with one light stage, then plans it and runs it again, each in a
process of its own. Prints one JSON line: seconds of each, shards per second of the first run, and the driver's CPU time
per slice.
"""

import argparse
import io
import json
import resource
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path

from PIL import Image

RECIPE = """name: tiny
workspace: ./work
pool: [{source: tiny, shards: "pool/*/*.tar"}]
score: [{kind: caption_text}]
select: [{kind: at_least, column: words, value: 1}]
"""
PER_FOLDER = 1000


def generate(folder: Path, shards: int) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), "teal").save(buffer, "JPEG")
    for number in range(shards):
        place = folder / "pool" / f"{number // PER_FOLDER:04d}"
        place.mkdir(parents=True, exist_ok=True)
        with tarfile.open(place / f"{number:06d}.tar", "w") as tar:
            for suffix, content in (("jpg", buffer.getvalue()), ("txt", f"thing number {number}".encode())):
                member = tarfile.TarInfo(f"{number:06d}.{suffix}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    (folder / "tiny.yaml").write_text(RECIPE)


def timed(folder: Path, *command: str) -> tuple[float, float]:
    """Wall and CPU seconds of a cuvee command, the CPU time without that of Ray's own processes."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    began = time.perf_counter()
    subprocess.run([sys.executable, "-m", "pipeline.cli", *command], check=True, cwd=Path(__file__).parents[1])
    wall = time.perf_counter() - began
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--shards", type=int, default=100_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        generate(folder, options.shards)
        recipe = str(folder / "tiny.yaml")
        facts = {"shards": options.shards, "plan": timed(folder, "plan", recipe)[0]}
        first, cpu = timed(folder, "run", recipe, "--until", "select")
        facts |= {"first run": first, "driver ms per slice": 1000 * cpu / options.shards}
        facts["plan again"] = timed(folder, "plan", recipe)[0]
        facts["run again"] = timed(folder, "run", recipe, "--until", "select")[0]
        print(json.dumps({key: round(value, 3) for key, value in facts.items()}))


main()

"""DSIR beside the package `data-selection`: CPU seconds for the same files, the same weights, the same draw.

    python -m venv PEER && PEER/bin/pip install data-selection==1.0.3 nltk==3.9.1
    python bench/dsir.py --peer PEER/bin/python --pool pool.jsonl:text --target target.jsonl:text

Both sides read the JSONL files, fit, and weigh every line of the pool in one process with one thread; set
OMP_NUM_THREADS=1 and POLARS_MAX_THREADS=1. After a round that is not counted runs alternate, medians are compared, and
CPU time is taken so that other work on the machine counts little. `exact` must give the package's weights (the largest
difference is printed) and, under its noise, its draw; `caption` is our default method for the same job.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from stages.budget import Budget  # noqa: E402
from stages.ngrams import Hashing, hash_ngrams  # noqa: E402  found beside this file, installed or not
from stages.target.dsir.weights import BUCKETS, Mode, Weights, log_weights  # noqa: E402

HASHING: dict[Mode, Hashing] = {"exact": "sha256", "caption": "xxh3"}


def texts_of(places: list[str], path: Path) -> Path:
    """Each `FILE:FIELD` into one JSONL file with the field under `text`; each text once, missing ones left out."""
    texts: dict[str, None] = {}
    for place in places:
        name, _, field = place.rpartition(":")
        texts |= dict.fromkeys(json.loads(line)[field] or "" for line in Path(name).read_text().splitlines())
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts if text))
    return path


def ours(pool: Path, target: Path, mode: Mode) -> tuple[float, Weights]:
    """CPU seconds and weights, from the files on."""
    began = time.process_time()
    read = [pl.read_ndjson(path, schema={"text": pl.String})["text"] for path in (pool, target)]
    hashed, wanted = (hash_ngrams(texts, size=BUCKETS[mode], hashing=HASHING[mode]) for texts in read)
    weights = log_weights(hashed, wanted.histogram(), mode)
    return time.process_time() - began, weights


class Peer:
    """The package in its own environment, started once."""

    def __init__(self, python: str) -> None:
        command = [python, str(Path(__file__).with_name("dsir_peer.py"))]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )

    def __call__(self, **job: Any) -> dict[str, Any]:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(json.dumps(job) + "\n")
        self.process.stdin.flush()
        answer: dict[str, Any] = json.loads(self.process.stdout.readline())
        return answer


def same_draw(peer: Peer, pool: Path, target: Path, weights: Weights, shortest: int, samples: int) -> bool:
    """True when both draw the same lines under the same Gumbel noise."""
    places = np.flatnonzero(weights.length >= shortest)
    noise = np.random.Generator(np.random.Philox(0)).gumbel(size=len(places))
    ranked = pl.DataFrame({"uid": [f"{place:09d}" for place in places], "score": weights.log[places] + noise})
    chosen = places[Budget.model_validate({"samples": samples}).take(ranked, 0, "dsir")]
    job = {"pool": str(pool), "target": str(target), "min_example_length": shortest, "samples": samples}
    drawn = peer(**job, noise=noise.tolist())["selected"]
    return bool(drawn == chosen.tolist())


def main() -> None:
    """Alternate, compare, print one line of Markdown per method."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--peer", required=True, help="python of an environment with data-selection and nltk 3.9.1")
    options.add_argument("--pool", required=True, nargs="+", help="FILE:FIELD")
    options.add_argument("--target", required=True, nargs="+", help="FILE:FIELD")
    options.add_argument("--runs", type=int, default=5)
    options.add_argument("--shortest", type=int, default=5, help="tokens, for the draw")
    given = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        pool = texts_of(given.pool, Path(folder) / "pool.jsonl")
        target = texts_of(given.target, Path(folder) / "target.jsonl")
        peer = Peer(given.peer)
        seconds: dict[str, list[float]] = {"data-selection": [], "exact": [], "caption": []}
        for mode in HASHING:  # a round that is not counted: imports, caches, on both sides
            ours(pool, target, mode)
        peer(pool=str(pool), target=str(target), min_example_length=1)
        for _ in range(given.runs):
            answer = peer(pool=str(pool), target=str(target), min_example_length=1)
            seconds["data-selection"].append(answer["seconds"])
            taken, exact = ours(pool, target, "exact")
            seconds["exact"].append(taken)
            seconds["caption"].append(ours(pool, target, "caption")[0])
        lines, size = len(exact.log), pool.stat().st_size
        print(f"{lines} lines, {size / 1e6:.2f} MB of pool; {given.runs} alternating runs; medians")
        print("| method | CPU s | lines/s | times as fast |\n| --- | --- | --- | --- |")
        middle = {name: statistics.median(taken) for name, taken in seconds.items()}
        for name, taken in middle.items():
            print(f"| {name} | {taken:.3f} | {lines / taken:,.0f} | {middle['data-selection'] / taken:.1f} |")
        print(f"largest difference of log weights: {np.abs(exact.log - answer['log_weights']).max():.2g}")
        print(f"lengths equal: {exact.length.tolist() == answer['lengths']}")
        samples = int((exact.length >= given.shortest).sum()) // 5
        print(f"same draw of {samples}: {same_draw(peer, pool, target, exact, given.shortest, samples)}")


if __name__ == "__main__":
    main()

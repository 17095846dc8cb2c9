"""A damaged pool beside webdataset: what is kept, what is lost, what is named, what slips through.

    python bench/corrupt.py ../shared/data

Builds 2,000 real pairs in 8 tars with 96 bad pairs (cut and empty images, duplicate members, missing captions), the
last tar cut (see `corrupt_pool`). Ours is `cuvee run` with `image_header` and `caption_text`, Ray's start included; the
script decodes the same tars with webdataset's default handler and with `warn_and_continue`, in a process of its own. A
bad pair counts as named when its key stands in the ledger with the reason that was planted, or anywhere in the script's
warnings or its last exception.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from bench.corrupt_pool import Truth, build  # noqa: E402  found beside this file, installed or not

Line = tuple[int, int, int, int, float]
"""Good kept, good lost, bad named, bad passed, seconds."""


def line(truth: Truth, kept: set[str], named: set[str], seconds: float) -> Line:
    """One side's counts."""
    good = kept & set(truth.good)
    return len(good), len(truth.good) - len(good), len(named & set(truth.bad)), len(kept & set(truth.bad)), seconds


def ours(truth: Truth, pool: Path, home: Path) -> Line:
    """A whole `cuvee run`, judged by its ledger."""
    import polars as pl

    from pipeline.ledger import read_ledger

    recipe: dict[str, Any] = {
        "name": "corrupt",
        "workspace": "./work",
        "pool": [{"source": "photos", "shards": f"{pool}/*.tar"}],
        "score": [{"kind": "image_header"}, {"kind": "caption_text"}],
    }
    (home / "recipe.yaml").write_text(json.dumps(recipe))
    began = time.perf_counter()
    command = [sys.executable, "-m", "pipeline.cli", "run", str(home / "recipe.yaml")]
    subprocess.run(command, check=True, capture_output=True, cwd=ROOT)
    seconds = time.perf_counter() - began
    run = (home / "work/runs/latest").read_text().strip()
    ledger = read_ledger(home / "work/runs" / run / "ledger")
    kept = set(ledger.filter(pl.col("status") == "kept")["key"])
    reasons = dict(ledger.filter(pl.col("status") == "quarantined").select("key", "reason").iter_rows())
    return line(truth, kept, {key for key, reason in truth.bad.items() if reasons.get(key) == reason}, seconds)


def script(truth: Truth, pool: Path, handler: str) -> Line:
    """webdataset's loop in a process of its own."""
    peer = Path(__file__).with_name("corrupt_peer.py")
    shards = map(str, sorted(pool.glob("*.tar")))
    ran = subprocess.run([sys.executable, str(peer), handler, *shards], check=True, capture_output=True, text=True)
    facts = json.loads(ran.stdout.splitlines()[-1])
    text = " ".join([*facts["warnings"], facts["ended"] or "", ran.stderr])
    return line(truth, set(facts["kept"]), {key for key in truth.bad if key in text}, facts["seconds"])


def main() -> None:
    """Build the pool, run all sides, print one line of Markdown each."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("data", type=Path, help="folder with pool/photos and target/photos")
    with tempfile.TemporaryDirectory() as folder:
        pool, home = Path(folder) / "pool", Path(folder)
        truth = build(options.parse_args().data, pool)
        sides = {"cuvee run": ours(truth, pool, home)}
        sides |= {f"webdataset, {name}": script(truth, pool, name) for name in ("default", "warn_and_continue")}
    print(f"{len(truth.good)} good pairs, {len(truth.bad)} bad ones, {len(truth.gone)} behind the cut.\n")
    print("| | good kept | good lost | bad named | bad passed | seconds |\n| --- | --- | --- | --- | --- | --- |")
    for name, (kept, lost, named, passed, seconds) in sides.items():
        print(f"| {name} | {kept:,} | {lost:,} | {named} of {len(truth.bad)} | {passed} | {seconds:.0f} |")


if __name__ == "__main__":
    main()

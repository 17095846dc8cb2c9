"""What the demo's connectors say of held-out pictures, and how long one takes: `python -m bench.demo_captions DEMO`.

Trains one connector per arm as the demo does (its recipe, first seed) in this process on one thread, from the demo's
pool and export, and counts what of the pictures' groups its captions name. Seconds are CPU time of this process for
training and judging one connector, visual tokens computed before.
"""

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pipeline.cluster import Cluster
from pipeline.demo.recipe import demo_recipe
from pipeline.demo.scenes import COLOURS, SHAPES
from pipeline.demo.spoken import groups, named
from pipeline.proof import settings
from pipeline.resolve import resolve
from pipeline.training.contest import held_out_pairs
from stages.train.comparison import Comparison, Job
from stages.train.samples import Corpus
from stages.train.workbench import Workbench

Array = npt.NDArray[np.float64]
RIDGE = 30.0


def main() -> None:
    """Print the figures, an arm a line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("demo", type=Path, help="what `cuvee demo --out` wrote")
    parser.add_argument("--folder", type=Path, default=Path(".bench/demo-captions"))
    given = parser.parse_args()
    resolved = resolve(demo_recipe(given.demo))
    made = settings(resolved).model_copy(update={"seeds": 1}).located()
    with Cluster(workers=1) as cluster:
        held = held_out_pairs(resolved, cluster)
    curated = [str(path) for path in sorted(given.demo.glob("work/export/demo/*.tar"))]
    pool = [str(path) for path in sorted(given.demo.glob("corpus/pool/*/*.tar"))]
    comparison = Comparison(made, {"curated": curated, "raw": pool}, given.folder, given.folder / "features", 0)
    comparison.read(held)
    bench = Workbench(comparison)
    for arm in ("curated", "raw"):
        began = time.process_time()
        result = bench.do(Job(arm, 0))
        seconds, captions = time.process_time() - began, result["captions"]
        facts = {"samples": result["samples"], "seconds": round(seconds, 1), **result["metrics"], **named(captions)}
        print(arm, json.dumps(facts), flush=True)
        for line in captions[:4]:
            print(f"    {line['distance']:.2f}  {line['written']}  |  {line['true']}")
    for part, (right, chance) in readable(bench).items():
        print(f"{part}: a ridge regression names one that is there in {right:.3f} of pictures, chance {chance:.3f}")


def readable(bench: Workbench) -> dict[str, tuple[float, float]]:
    """What the tower's features say by themselves: fitted on the curated arm, measured on the held-out pairs."""
    found = {}
    for part, place, kinds in (("colours", 1, tuple(COLOURS)), ("shapes", 2, SHAPES)):
        seen, there = _probed(bench, bench.corpora["curated"], place, kinds)
        held, truth = _probed(bench, bench.asked.corpus, place, kinds)
        weights = np.linalg.solve(seen.T @ seen + RIDGE * np.eye(seen.shape[1]), seen.T @ there)
        best = (held @ weights).argmax(axis=1)
        found[part] = (float(truth[np.arange(len(truth)), best].mean()), float(truth.mean()))
    return found


def _probed(bench: Workbench, samples: Corpus, place: int, kinds: Sequence[str]) -> tuple[Array, Array]:
    """(n, f) mean, largest and least features of each picture, and (n, k) which of the kinds its caption names."""
    tokens = bench.frozen.visual.gather(samples.images).astype(np.float64)
    features = np.concatenate([tokens.mean(1), tokens.max(1), tokens.min(1), np.ones((len(tokens), 1))], axis=1)
    spell = bench.frozen.language.tokenizer.decode
    said = [{group[place] for group in groups(spell(samples.caption(i)))} for i in range(len(samples))]
    return features, np.array([[kind in names for kind in kinds] for names in said], np.float64)


if __name__ == "__main__":
    main()

"""Which metrics tell a trained connector from an untrained one, in the demo's world with the demo's models?

    OMP_NUM_THREADS=1 python -m bench.layer_metrics

800 scenes of four sources to train on, 128 held-out pairs; 150 steps of the demo's settings; five seeds. Before and
after share a seed's initial weights.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa

from pipeline.demo.corpus import write_corpus
from stages.train.batches import Batches
from stages.train.comparison import Comparison
from stages.train.loop import train
from stages.train.metrics.examination import Examination
from stages.train.metrics.on_demand import OnDemand
from stages.train.run import Run
from stages.train.samples import read_pairs
from stages.train.settings import TrainSettings
from stages.train.steering import Fixed
from stages.train.workbench import Workbench

MODELS = Path(__file__).resolve().parents[1] / "pipeline" / "demo" / "models"
WANTED: tuple[OnDemand, ...] = ("mir", "ima", "mutual_knn", "groups", "style_leakage")
SHOWN = ("group_balanced_nll", "worst_group_nll", "mir", "ima_gap", "mutual_knn", "style_leakage")


def opened(folder: Path, steps: int, rate: float) -> tuple[Workbench, list[str]]:
    """The world read, and the source of each sample to train on."""
    write_corpus(folder / "corpus", pairs=800, plants=False)
    tars = sorted(map(str, (folder / "corpus").rglob("*.tar")))
    pool, held = ([tar for tar in tars if ("/target/" in tar) == wanted] for wanted in (False, True))
    rows = list(read_pairs(held))
    columns = {"key": [row.key for row in rows], "image": pa.array([row.image for row in rows], pa.large_binary())}
    asked = pa.table({**columns, "caption": [row.caption for row in rows]})
    made = TrainSettings.model_validate(
        {
            "vision_model": f"local-dir:{MODELS / 'encoder'}", "language_model": str(MODELS / "language_model"),
            "budget": {"steps": steps}, "learning_rate": rate, "generated": 0, "metrics": WANTED,
        }
    )  # fmt: skip
    comparison = Comparison(made, {"all": pool}, folder, folder / "features", 0)
    comparison.read(asked)
    bench = Workbench(comparison)
    source = {pair.image_hash: Path(tar).parent.name for tar in pool for pair in read_pairs([tar])}
    return bench, [source[image] for image in bench.corpora["all"].images]


def row(bench: Workbench, sources: list[str], seed: int) -> tuple[list[float], list[float]]:
    """The shown metrics before and after training."""
    corpus, settings = bench.corpora["all"], bench.comparison.settings
    start = Run.start(settings, Batches(bench.frozen, {"": corpus}), f"0/{seed}", Fixed(np.ones(1), 1)).bridge
    trained = train(settings, bench.frozen, corpus, f"0/{seed}").bridge
    both = (
        Examination(bridge, bench.frozen, bench.asked, corpus, sources, 32).found(WANTED) for bridge in (start, trained)
    )
    before, after = ([found["metrics"][name] for name in SHOWN] for found in both)
    return before, after


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--rate", type=float, default=3e-3)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        bench, sources = opened(Path(folder), given.steps, given.rate)
        found = np.array([row(bench, sources, seed) for seed in range(given.seeds)])
    print("| metric | untrained | trained | seeds in which it rises |\n| --- | --- | --- | --- |")
    for place, name in enumerate(SHOWN):
        before, after = found[:, 0, place], found[:, 1, place]
        said = " | ".join(f"{side.mean():.3f} ± {side.std(ddof=1):.3f}" for side in (before, after))
        print(f"| {name} | {said} | {(after > before).sum()} of {given.seeds} |")


if __name__ == "__main__":
    main()

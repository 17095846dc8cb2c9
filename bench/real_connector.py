"""A connector on real photos: does held-out loss fall, and does it use the image? `python -m bench.real_connector`.

Every photo of the pool is exported (exact duplicates and the tenth of lowest CLIP score left out), and a connector is
trained on the export behind the real dual encoder and before the small language model that cuvee ships, which knows the
demo's captions only. Held out: the target's photos, none of which is in the pool.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import yaml

from pipeline.cluster import Cluster
from pipeline.demo.recipe import LANGUAGE_MODEL
from pipeline.replay import tars_of
from pipeline.resolve import resolve
from pipeline.run import run
from pipeline.train import Arm, compare
from stages.train.comparison import Comparison
from stages.train.metrics.evaluation import evaluate
from stages.train.run import connector_card
from stages.train.samples import read_pairs
from stages.train.settings import TrainSettings
from stages.train.workbench import Workbench

SHARED = Path(__file__).resolve().parents[2] / "shared"
ENCODER = SHARED / "models" / "tiny-dual-encoder"


def exported(folder: Path) -> Path:
    """The export's manifest."""
    recipe = {
        "name": "photos", "workspace": "work",
        "pool": [{"source": "photos", "shards": str(SHARED / "data" / "pool" / "photos" / "*.tar")}],
        "score": [{"kind": "clip", "model": f"local-dir:{ENCODER}"}],
        "select": [{"kind": "exact_duplicates"}, {"kind": "top_fraction", "column": "clip_score", "fraction": 0.9}],
        "export": {"kind": "webdataset"},
    }  # fmt: skip
    path = folder / "photos.yaml"
    path.write_text(yaml.safe_dump(recipe))
    with Cluster() as cluster:
        run(resolve(path), cluster)
    return folder / "work" / "export" / "photos" / "manifest.json"


def main() -> None:
    """Print the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path(".bench/real-connector"))
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--learning-rate", type=float, default=1e-2)
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    settings = TrainSettings.model_validate(
        {
            "vision_model": str(ENCODER), "language_model": str(LANGUAGE_MODEL), "budget": {"steps": given.steps},
            "batch": 16, "seeds": given.seeds, "learning_rate": given.learning_rate, "visual_tokens": 9,
        }
    )  # fmt: skip
    tars = tars_of(exported(given.folder))
    pairs = list(read_pairs([str(SHARED / "data" / "target" / "photos" / "00000.tar")]))
    held = pa.table({name: [getattr(pair, name) for pair in pairs] for name in ("key", "image", "caption")})
    found = compare(settings, [Arm("photos", tuple(tars))], held, given.folder / "run", seed=0)
    before = untrained(settings, tars, held, given.folder / "run")
    runs = found["arms"]["photos"]["runs"]
    print(json.dumps([{"before": before[run["seed"]], **run["metrics"]} for run in runs], indent=1))
    print(
        found["arms"]["photos"]["samples"], "photos,", found["evaluation"]["pairs"], "held out,", found["seconds"], "s"
    )


def untrained(settings: TrainSettings, tars: list[str], held: pa.Table, folder: Path) -> list[Any]:
    """Held-out NLL of each seed's connector before its first step."""
    comparison = Comparison(settings.located(), {"photos": tars}, folder, folder / "features", 0)
    comparison.read(held)
    bench = Workbench(comparison)
    cards = [connector_card(settings, bench.frozen, f"0/{seed}") for seed in range(settings.seeds)]
    return [evaluate(card.bridge(), bench.frozen, bench.asked, settings.batch)["nll_per_token"] for card in cards]


if __name__ == "__main__":
    main()

"""The connector as pilot, on the models that ship with cuvee: a few steps, for real."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import yaml

from pipeline.cluster import Cluster
from pipeline.resolve import resolve
from pipeline.sidecars import read_json
from pipeline.trials import asked, run_trials
from schemas.errors import CuveeError, RecipeError
from stages.mixture.trials_table import read_trials
from tests.pools import sample, write_tar

MODELS = Path(__file__).resolve().parents[3] / "pipeline" / "demo" / "models"
TRIALS = {"design": {"kind": "lattice", "divisions": 1}, "count": 2, "budgets": [8, 24], "seeds": 1, "held_out": 16}


@pytest.fixture
def recipe(make_pool: Callable[..., Path]) -> Callable[..., Path]:
    if not (MODELS / "encoder").is_dir():
        pytest.skip("the shipped models are not in pipeline/demo/models; train them with jobs/train_demo_*.py")

    def make(**trials: object) -> Path:
        path = make_pool(shards=2, rows=24)
        document = yaml.safe_load(path.read_text())
        document["score"].append({"kind": "clip", "model": f"local-dir:{MODELS / 'encoder'}"})
        document["export"] = {"kind": "webdataset"}
        document["train"] = {
            "language_model": str(MODELS / "language_model"), "budget": {"steps": 999}, "batch": 8, "generated": 2,
            "learning_rate": 0.01,
        }  # fmt: skip
        document["trials"] = {**TRIALS, **trials}
        path.write_text(yaml.safe_dump(document))
        return path

    return make


def test_connectors_are_trained_on_mixtures_and_measured_on_every_source(
    recipe: Callable[..., Path], ray_cluster: object
) -> None:
    path = recipe()
    outcome = run_trials(resolve(path), Cluster())
    assert outcome.trials is not None and outcome.trials["held_out"] == {"alpha": 16, "beta": 16, "target": 20}
    table = read_trials(outcome.trials["table"])
    held = ("alpha", "beta", "target")
    metrics = ("brier", "nll", "token_edit_distance")
    assert table.metrics == tuple(f"{metric}.{name}" for metric in metrics for name in held)
    assert np.isfinite(table.values).all() and table.budgets.tolist() == [8, 8, 24, 24]
    nll = table.values[:, table.metrics.index("nll.target")]
    assert nll[2:].max() < nll[:2].min()  # three steps say more than one
    drawn = [read_json(file)["drawn"] for file in (path.parent / "work/trials/small/jobs").glob("*.json")]
    assert sorted((counts["alpha"], counts["beta"]) for counts in drawn) == [(0, 8), (0, 24), (8, 0), (24, 0)]
    # A fifth of the target, by hash of the image, is left to the final proof.
    final = set(outcome.chosen.held["uid"])
    fits = [folder for folder in (path.parent / "work" / "fits").iterdir() if (folder / "pairs.parquet").exists()]
    pairs = pl.read_parquet(fits[0] / "pairs.parquet")
    assert final and not final & set(pairs["uid"])
    assert not set(pairs.filter(part="drawn")["image_hash"]) & set(pairs.filter(part="held")["image_hash"])
    parts = list((path.parent / "work" / "fits" / "visual-tokens").rglob("*.npy"))
    assert sum(len(np.load(part)) for part in parts) == len(pairs)

    wider = path.read_text().replace("- 24\n", "- 24\n  - 32\n")
    path.write_text(wider)
    again = run_trials(resolve(path), Cluster())
    assert again.trials is not None and again.trials["computed"] == 2
    assert {part: part.stat().st_mtime_ns for part in parts} == {
        part: part.stat().st_mtime_ns for part in (path.parent / "work" / "fits" / "visual-tokens").rglob("*.npy")
    }


def test_a_connector_has_no_settings_of_its_own(recipe: Callable[..., Path]) -> None:
    with pytest.raises(RecipeError, match="pilot 'connector' has no setting 'width' of its own; set it under `train`"):
        asked(resolve(recipe(pilot={"kind": "connector", "width": 3}), models=False))


def test_a_target_without_captions_is_refused(recipe: Callable[..., Path], ray_cluster: object) -> None:
    path = recipe()
    blank = [sample(n, "\u200b") for n in range(20_000, 20_024)]
    write_tar(path.parent / "target" / "00000.tar", blank)
    with pytest.raises(CuveeError, match="the target has no usable sample: 24 empty_caption"):
        run_trials(resolve(path), Cluster())

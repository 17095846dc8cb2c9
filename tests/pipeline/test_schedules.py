"""A recipe whose mixture is learned by training proxies, and whose curated arm is trained under a schedule."""

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from pipeline.cluster import Cluster
from pipeline.resolve import resolve
from pipeline.run import run
from pipeline.sidecars import read_json
from schemas.errors import RecipeError

MODELS = Path(__file__).resolve().parents[2] / "pipeline" / "demo" / "models"


@pytest.fixture
def recipe(make_pool: Callable[..., Path]) -> Callable[..., Path]:
    if not (MODELS / "encoder").is_dir():
        pytest.skip("the shipped models are not in pipeline/demo/models; train them with jobs/train_demo_*.py")

    def make(**changed: object) -> Path:
        path = make_pool(shards=2, rows=80)
        document = yaml.safe_load(path.read_text())
        document["score"].append({"kind": "clip", "model": f"local-dir:{MODELS / 'encoder'}"})
        document["export"] = {"kind": "webdataset", "samples": 60, "materialize": False}
        document["mix"] = {"kind": "doge", "every": 2, "probe": 8, "seeds": 2, "proxy_steps": 4}
        document["train"] = {
            "language_model": str(MODELS / "language_model"), "budget": {"epochs": 1}, "batch": 10, "generated": 2,
            "seeds": 2, "learning_rate": 0.01, "schedule": {"kind": "tikmix_d", "every": 3, "probe": 8},
            "metrics": ["ima", "groups", "style_leakage"],
        }  # fmt: skip
        path.write_text(yaml.safe_dump({**document, **changed}))
        return path

    return make


def test_a_learned_mixture_and_a_steered_arm(recipe: Callable[..., Path], ray_cluster: object) -> None:
    path = recipe()
    outcome = run(resolve(path), Cluster())
    mixture = outcome.blend.mixture
    assert mixture is not None and sum(mixture["weights"].values()) == pytest.approx(1)
    assert set(mixture["references"]) == {"ideal", "natural", "uniform"}
    for schedule in mixture["evidence"]["schedules"]:
        assert [update["step"] for update in schedule["updates"]] == [0, 2]
        assert len(schedule["updates"][0]["products"]) == 2 and len(schedule["updates"][0]["products"][0]) == 1
    losses = mixture["evidence"]["held_out_losses"]
    assert [list(line) for line in losses["uniform"]] == [["target"], ["target"]]
    curated = outcome.training["arms"]["curated"]
    assert outcome.training["steps"] == 6, "one epoch of the 60 curated samples"
    for made in curated["runs"]:
        assert [update["step"] for update in made["schedule"]["updates"]] == [0, 3]
        assert sum(made["schedule"]["drawn"].values()) == 60
        assert {group["source"] for group in made["examined"]["groups"]["groups"]} == {"target"}
        assert len(made["examined"]["layers"]["ima"]) == 4 and -2 <= made["metrics"]["ima_gap"] <= 2
        assert {"spurious_strength", "style_leakage"} < set(made["metrics"]) and "left_out" not in made["examined"]
    assert not list((path.parent / "work").rglob("*.tar")), "every arm was read from the pool"
    again = run(resolve(path), Cluster())
    assert again.blend.reused and again.training == outcome.training
    proxies = sorted((path.parent / "work" / "fits").glob("proxy-*/*.json"))
    assert proxies and not list((path.parent / "work" / "fits").glob("proxy-*/*.safetensors"))
    assert all(set(read_json(file)) == {"losses", "updates", "weights"} for file in proxies)


def test_a_mixer_that_trains_needs_to_know_how(recipe: Callable[..., Path]) -> None:
    with pytest.raises(RecipeError, match="mixer 'doge' trains proxy connectors by the settings of `train`"):
        resolve(recipe(train=None), models=False)

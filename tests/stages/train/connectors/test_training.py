"""Every connector is trained between real, tiny models: the loss falls, a killed run goes on, nothing frozen moves."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from stages.train.bridge import Bridge
from stages.train.loop import Frozen, train
from stages.train.metrics.evaluation import Evaluation
from stages.train.metrics.examination import Examination
from stages.train.metrics.expert_report import expert_report
from stages.train.metrics.nll import sample_losses
from tests.stages.train import generated

KINDS: dict[str, dict[str, Any]] = {
    "linear": {},
    "mlp": {},
    "pooled_mlp": {},
    "perceiver": {"latents": 2, "depth": 1, "heads": 2},
    "qformer": {"queries": 2, "layers": 2, "width": 8, "heads": 2},
    "grounded_qformer": {"queries": 2, "layers": 2, "width": 8, "heads": 2},
    "ep_alm": {"layers": 2, "soft_prompt": 1},
    "moe_mlp": {"experts": 2, "top_k": 2, "scope": "micro_batch"},
}
STEPS = 24


class Killed(Exception):
    """Ends a run in the middle."""


@pytest.fixture(scope="module")
def world() -> Frozen:
    return replace(generated.frozen(["a"], 48), language=generated.language(layers=3))


@pytest.mark.parametrize("kind", KINDS)
def test_it_learns_goes_on_after_a_kill_and_leaves_the_models_alone(kind: str, world: Frozen, tmp_path: Path) -> None:
    layer = 1 if kind in ("grounded_qformer", "pooled_mlp") else 0
    told = {"hidden": None, "connector": {"kind": kind, **KINDS[kind]}, "inject_layer": layer}
    settings = generated.settings(**told, budget={"steps": STEPS}, learning_rate=3e-2)
    samples, losses = generated.corpus("a", range(48)), {}
    before = {name: value.clone() for name, value in world.language.model.state_dict().items()}
    trained = train(settings, world, samples, "7", on_step=losses.__setitem__)
    assert sum(losses[step] for step in range(STEPS - 5, STEPS + 1)) < 6 * losses[1]
    after = world.language.model.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())

    def kill(step: int, loss: float) -> None:
        if step == 7:
            raise Killed

    checkpoint = tmp_path / "checkpoint.safetensors"
    with pytest.raises(Killed):
        train(settings, world, samples, "7", checkpoint=checkpoint, on_step=kill)
    again = train(settings, world, samples, "7", checkpoint=checkpoint).bridge.state_dict()
    assert all(torch.equal(value, again[name]) for name, value in trained.bridge.state_dict().items())
    _is_read(trained.bridge, world, samples)


def _is_read(bridge: Bridge, world: Frozen, samples: Any) -> None:
    """Losses and captions depend on the image."""
    images = list(samples.images)
    with torch.inference_mode():
        own = sample_losses(bridge, world, samples, images, 12)
        other = sample_losses(bridge, world, samples, images[1:] + images[:1], 12)
        assert own.mean() < other.mean()
        shown = world.language.show(bridge, world.embeddings(images[:4]))
        assert len(world.language.generate(shown, 3, bridge)) == 4


def test_a_connector_that_does_not_fit_the_run_is_refused() -> None:
    for told, said in (
        ({"connector": "grounded_qformer"}, "set `inject_layer`"),
        ({"connector": "perceiver", "hidden": 8}, "no such layer"),
        ({"connector": "ep_alm", "vision_layer": -2}, "one vector of each last layer"),
        ({"connector": {"kind": "moe_mlp", "router": "reference", "sources": ["a"]}}, "choose `router: learned`"),
    ):
        with pytest.raises(ValidationError, match=said):
            generated.settings(**{"hidden": None, **told})


def test_a_mixture_of_experts_is_examined_by_source(world: Frozen) -> None:
    told = {"hidden": None, "connector": {"kind": "moe_mlp", "experts": 2, "balance": 0.1}}
    samples = generated.corpus("a", range(48))
    sources = ["few" if i % generated.CLASSES < 3 else "many" for i in range(48)]
    trained = train(generated.settings(**told, learning_rate=3e-2), world, samples, "7").bridge
    plain = train(generated.settings(budget={"steps": 1}), world, samples, "7").bridge
    with torch.inference_mode():
        found = expert_report(trained, world, samples, sources, 12, seed=1)
        assert isinstance(found, dict) and found["sources"] == ["few", "many"]
        assert np.array(found["counts"]).sum(axis=1).tolist() == [24 * generated.VISUAL] * 2 and 0 <= found["nmi"] <= 1
        assert np.diag(found["swap_costs"]).tolist() == [0, 0]
        assert found["swap_cost"] > 0, "each expert has learned what the other has not"
        asked = Evaluation.over(samples, 0, 1, dict(zip(samples.keys, sources, strict=True)))
        examined = Examination(trained, world, asked, samples, sources, 12).found(["experts"])
        assert examined["experts"] == found and examined["metrics"]["expert_nmi"] == found["nmi"]
        left_out = Examination(plain, world, asked, samples, sources, 12).found(["experts"])["left_out"]
        assert "no router" in left_out["experts"]
        assert "one source" in str(expert_report(trained, world, samples, ["few"] * 48, 12, seed=1))
        assert "one source" in str(expert_report(trained, world, samples, (), 12, seed=1))

"""Killed at any step, a run goes on bit for bit; what is frozen is not touched, whatever happens."""

import itertools
import json
import random
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
import xxhash

from stages.train.batches import Batches
from stages.train.language_model import one_thread
from stages.train.loop import train
from stages.train.run import Run
from stages.train.steering import Fixed
from tests.stages.train import generated, ranked

STEPS = 24
MADE = {"budget": {"steps": STEPS}, "checkpoint_steps": 3, "optimizer": "stable_adamw", "weight_decay": 0.01}
POINTS = sorted(random.Random(7).sample([(often, step) for often in (1, 2, 3, 5) for step in range(1, STEPS)], 20))


@pytest.fixture(scope="module")
def whole() -> tuple[dict[int, float], list[list[list[object]]]]:
    return ranked.run(**MADE)


@pytest.mark.parametrize(("often", "step"), POINTS)
def test_twenty_random_kill_points_resume_exactly(
    whole: tuple[dict[int, float], list[list[list[object]]]], tmp_path: Path, often: int, step: int
) -> None:
    checkpoint, made = tmp_path / "checkpoint.safetensors", {**MADE, "checkpoint_steps": often}
    before, _ = ranked.run(checkpoint, step, **made)
    after, drawn = ranked.run(checkpoint, **made)
    assert list(after) == list(range(step // often * often + 1, STEPS + 1))
    assert {**before, **after} == whole[0], "bit for bit"
    assert drawn == whole[1][step // often * often :]


def test_a_killed_process_resumes_exactly(
    whole: tuple[dict[int, float], list[list[list[object]]]], tmp_path: Path
) -> None:
    checkpoint = tmp_path / "checkpoint.safetensors"
    child = ranked.CHILDREN.Process(target=ranked.struck, args=(checkpoint, 12, MADE))
    child.start()
    child.join()
    assert child.exitcode == -signal.SIGKILL and checkpoint.exists()
    after, _ = ranked.run(checkpoint, **MADE)
    assert list(after) == list(range(10, STEPS + 1)) and all(whole[0][step] == loss for step, loss in after.items())


def digest(module: torch.nn.Module) -> str:
    found = xxhash.xxh3_128()
    for name, value in sorted(module.state_dict().items()):
        found.update(name.encode() + value.contiguous().view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_frozen_weights_are_bit_identical_and_only_the_trained_have_gradients(precision: str) -> None:
    frozen = generated.frozen(("web",), 12)
    model = frozen.language.model
    before, made = digest(model), generated.settings(precision=precision, micro_batch=5)
    sources = Batches(frozen, {"": generated.corpus("web", range(12))})
    with one_thread():
        run = Run.start(made, sources, "0", Fixed(np.ones(1), 1))
        run.to_the_end(None, None)
    assert digest(model) == before
    assert all(one.grad is None and not one.requires_grad for one in model.parameters())
    assert {name for name, one in run.bridge.named_parameters() if one.grad is not None} == {
        "connector.0.weight", "connector.0.bias", "connector.2.weight", "connector.2.bias",
    }  # fmt: skip


@pytest.mark.parametrize("budget", [{"tokens": 1000}, {"steps": 21}])
def test_a_budget_is_used_up_also_by_a_run_that_goes_on(tmp_path: Path, budget: dict[str, int]) -> None:
    """4 tokens a sample, 12 samples a step: 48 a step."""
    made = {**MADE, "budget": budget, "checkpoint_steps": 1}
    straight, _ = ranked.run(**made)
    before, _ = ranked.run(tmp_path / "c.safetensors", 9, **made)
    after, _ = ranked.run(tmp_path / "c.safetensors", **made)
    assert {**before, **after} == straight and len(straight) == 21


def test_the_journal_says_what_was_drawn_and_how_fast() -> None:
    frozen = generated.frozen(("web",), 12)
    trained = train(
        generated.settings(budget={"tokens": 1000}, floor=0.1), frozen, generated.corpus("web", range(12)), "0"
    )
    windows = trained.log["windows"]
    assert trained.log["steps"] == windows[-1]["step"] == 21 and windows[-1]["budget_used"] == 1.0
    assert windows[-1]["rate"] == pytest.approx(1e-3), "the floor"
    assert sum(window["visual"] for window in windows) == sum(window["label"] for window in windows) == 21 * 24
    assert sum(window["sources"][""]["samples"] for window in windows) == 21 * 12
    assert trained.log["spikes"] == 0 and len(windows) <= 21
    assert 0 <= trained.speed["data_wait"] < 1 and trained.speed["samples_per_s"] > 0
    assert trained.speed["visual_per_s"] == pytest.approx(2 * trained.speed["samples_per_s"])


class Struck(Exception):
    pass


def test_reference_time_ends_at_the_floor_also_on_a_device_that_is_slower_since_it_went_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = {"model": "llama-hidden16-vocabulary8", "layers": 1, "seq": 35, "batch": 12, "kind": "train", "seconds": 0.5}
    (tmp_path / "table.json").write_text(json.dumps({"machine": "reference", "rows": [row]}))
    frozen, corpus, checkpoint = generated.frozen(("web",), 12), generated.corpus("web", range(12)), tmp_path / "c"
    made = generated.settings(
        budget={"reference_seconds": 5}, reference_table=str(tmp_path / "table.json"), floor=0.1, checkpoint_steps=1
    )
    straight = train(made, frozen, corpus, "0")

    def strike(step: int, loss: float) -> None:
        if step == 4:
            raise Struck

    with pytest.raises(Struck):
        train(made, frozen, corpus, "0", checkpoint=checkpoint, on_step=strike)
    ticks = itertools.count(0, 1000)
    monkeypatch.setattr("stages.train.run.perf_counter", lambda: next(ticks))
    slower = train(made, frozen, corpus, "0", checkpoint=checkpoint)
    assert slower.speed["seconds"] >= 6 * 1000, "the device is slow now"
    assert slower.log == straight.log and slower.curve == straight.curve and slower.log["steps"] == 10
    last = slower.log["windows"][-1]
    assert last["budget_used"] == 1.0 and last["rate"] == pytest.approx(0.1 * made.learning_rate)

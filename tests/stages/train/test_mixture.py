from pathlib import Path

import numpy as np
import pytest

from schemas.errors import CuveeError
from stages.train.batches import ONLY
from stages.train.loop import Frozen, train, train_mixture
from stages.train.metrics.evaluation import evaluate_sources
from stages.train.metrics.nll import brier_scores
from stages.train.metrics.token_edit_distance import edit_distance
from stages.train.samples import Corpus
from tests.stages.train.generated import CLASSES, EOS, corpus, frozen, settings
from tests.stages.train.own_forward import log_probabilities

TURNED = {c: (c + 1) % CLASSES for c in range(CLASSES)}
WEIGHTS = np.array([0.15, 0.6, 0.25])


class Killed(Exception):
    pass


@pytest.fixture(scope="module")
def world() -> Frozen:
    return frozen(["bad", "good", "held", "more"], 60)


@pytest.fixture
def sources() -> dict[str, Corpus]:
    bad = corpus("bad", range(30), said=TURNED)
    return {"good": corpus("good", range(60)), "bad": bad, "more": corpus("more", range(17))}


def weights(module: object) -> list[np.ndarray]:
    return [value.numpy() for value in module.state_dict().values()]  # type: ignore[attr-defined]


def equal(left: object, right: object) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(weights(left), weights(right), strict=True))


@pytest.mark.parametrize("killed_after", [4, 6, 19])
def test_a_killed_mixture_continues_bit_for_bit(
    world: Frozen, sources: dict[str, Corpus], tmp_path: Path, killed_after: int
) -> None:
    whole = train_mixture(settings(), world, sources, "7/0", WEIGHTS)
    checkpoint = tmp_path / "checkpoint.safetensors"

    def kill(step: int, loss: float) -> None:
        if step == killed_after:
            raise Killed

    with pytest.raises(Killed):
        train_mixture(settings(), world, sources, "7/0", WEIGHTS, checkpoint=checkpoint, on_step=kill)
    seen: list[int] = []
    turned = dict(reversed(sources.items()))
    resumed = train_mixture(
        settings(), world, turned, "7/0", WEIGHTS, checkpoint=checkpoint, on_step=lambda step, _: seen.append(step)
    )
    assert seen[0] == killed_after // 4 * 4 + 1
    assert equal(resumed.bridge, whole.bridge) and resumed.curve == whole.curve
    assert resumed.drawn == whole.drawn == {"bad": 36, "good": 144, "more": 60}
    assert not checkpoint.exists()


def test_a_checkpoint_of_other_shares_is_refused(world: Frozen, sources: dict[str, Corpus], tmp_path: Path) -> None:
    checkpoint = tmp_path / "checkpoint.safetensors"

    def kill(step: int, loss: float) -> None:
        if step == 4:
            raise Killed

    with pytest.raises(Killed):
        train_mixture(settings(), world, sources, "7/0", WEIGHTS, checkpoint=checkpoint, on_step=kill)
    with pytest.raises(CuveeError, match="schedule ="):
        train_mixture(settings(), world, sources, "7/0", np.full(3, 1 / 3), checkpoint=checkpoint)
    fewer = {name: sources[name] for name in ("bad", "good")}
    with pytest.raises(CuveeError, match="data ="):
        train_mixture(settings(), world, fewer, "7/0", np.array([0.5, 0.5]), checkpoint=checkpoint)


def test_one_source_is_the_single_corpus(world: Frozen, sources: dict[str, Corpus]) -> None:
    alone = train(settings(), world, sources["good"], "7/0")
    one = train_mixture(settings(), world, {"good": sources["good"]}, "7/0", np.ones(1))
    within = train_mixture(settings(), world, sources, "7/0", np.array([0.0, 1.0, 0.0]))
    assert equal(alone.bridge, one.bridge) and equal(alone.bridge, within.bridge)
    assert alone.curve == one.curve == within.curve
    assert alone.drawn == {ONLY: 240} and within.drawn == {"bad": 0, "good": 240, "more": 0}


def test_more_of_a_harmful_source_harms(world: Frozen, sources: dict[str, Corpus]) -> None:
    held = {"right": corpus("held", range(60)), "turned": corpus("held", range(60), said=TURNED)}
    made = settings(budget={"steps": 60})
    found = []
    for share in (0.1, 0.5, 0.9):
        trained = train_mixture(made, world, sources, "7/0", np.array([share, 1 - share, 0.0]))
        found.append(evaluate_sources(trained.bridge, world, held, generated=8))
    for metric in ("nll", "brier"):
        right, turned = ([f[name][metric] for f in found] for name in ("right", "turned"))
        assert right[0] < right[1] < right[2] and turned[0] > turned[1] > turned[2]


def test_metrics_of_a_source_against_one_sample_at_a_time(world: Frozen, sources: dict[str, Corpus]) -> None:
    import torch

    bridge = train_mixture(settings(), world, sources, "7/0", WEIGHTS).bridge
    held = {"a": sources["bad"], "b": sources["more"]}
    found = evaluate_sources(bridge, world, held, batch=7, generated=100)
    for name, samples in held.items():
        losses, briers, distances = [], [], []
        for i in range(len(samples)):
            label = samples.caption(i)
            with torch.inference_mode():
                shown = bridge.show(world.embeddings([samples.images[i]]))
                said = log_probabilities(world.language, shown.tokens[0], [*label, EOS]).double().exp()
            for spoken, token in zip(said.numpy(), [*label, EOS], strict=True):
                truth = np.eye(len(spoken))[token]
                losses.append(-np.log(spoken[token]))
                briers.append(((spoken - truth) ** 2).sum())
            distances.append(edit_distance(world.language.generate(shown, 1, bridge)[0], label))
        assert found[name]["nll"] == pytest.approx(np.mean(losses), rel=1e-5)
        assert found[name]["brier"] == pytest.approx(np.mean(briers), rel=1e-5)
        assert found[name]["token_edit_distance"] == pytest.approx(np.mean(distances))


def test_brier_of_certainty_and_of_ignored_labels() -> None:
    import torch

    logits = torch.tensor([[[50.0, 0.0, 0.0], [0.0, 50.0, 0.0], [0.0, 0.0, 0.0], [9.0, 0.0, 0.0]]])
    found = brier_scores(logits, torch.tensor([[0, 0, 0, -100]]))
    assert found[0].tolist() == pytest.approx([0.0, 2.0, 2 / 3, 0.0], abs=1e-6)


def test_what_cannot_be_mixed_or_evaluated_is_refused(world: Frozen, sources: dict[str, Corpus]) -> None:
    empty = {**sources, "none": corpus("good", [])}
    with pytest.raises(CuveeError, match="source 'none' has no sample"):
        train_mixture(settings(), world, empty, "7/0", np.full(4, 0.25))
    with pytest.raises(CuveeError, match="source 'none' has no sample to evaluate"):
        evaluate_sources(None, world, empty)  # type: ignore[arg-type]
    with pytest.raises(CuveeError, match="3 weights"):
        train_mixture(settings(), world, sources, "7/0", np.ones(2) / 2)

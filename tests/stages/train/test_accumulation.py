"""Micro batches, ranks and precision do not change what is descended."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from schemas.errors import CuveeError
from stages.train import watch
from stages.train.accumulation import Accumulation, Passed
from stages.train.batches import Batches
from stages.train.language_model import one_thread
from stages.train.loop import train, train_mixture
from stages.train.precision import numerics
from stages.train.run import connector_card
from stages.train.settings import TrainSettings
from tests.stages.train import generated

DRAWN = [("web", 3), ("web", 0), ("photos", 5), ("web", 9), ("photos", 1), ("photos", 7), ("web", 2)]


@pytest.fixture(autouse=True)
def calm() -> Iterator[None]:
    with one_thread():
        yield


@pytest.fixture(scope="module")
def sources() -> Batches:
    frozen = generated.frozen(("web", "photos"), 12)
    return Batches(frozen, {name: generated.corpus(name, range(12)) for name in ("web", "photos")})


def passed(sources: Batches, settings: TrainSettings, how: Accumulation) -> tuple[Passed, dict[str, torch.Tensor]]:
    bridge = connector_card(settings, sources.frozen, "0").bridge()
    found = how.gradient(sources, bridge, DRAWN)
    return found, {name: one.grad for name, one in bridge.named_parameters() if one.grad is not None}


@pytest.mark.parametrize("connector", ["mlp", {"kind": "moe_mlp", "experts": 3, "scope": "sequence"}])
@pytest.mark.parametrize("micro", [1, 2, 3, 6])
def test_micro_batches_give_the_loss_and_the_gradient_of_the_whole(
    sources: Batches, connector: object, micro: int
) -> None:
    made = generated.settings(connector=connector, hidden=None)
    whole, gradients = passed(sources, made, Accumulation())
    found, parts = passed(sources, made, Accumulation(micro=micro))
    assert found.loss == pytest.approx(whole.loss, rel=1e-6)
    assert np.allclose(found.each, whole.each, rtol=1e-6) and found.labels.tolist() == [2.0] * 7
    assert found.weight == 14 and found.counts == whole.counts == (14, 14, 14, 0)
    for name, gradient in gradients.items():
        assert torch.allclose(parts[name], gradient, rtol=1e-4, atol=1e-6), name


def test_the_loss_is_that_of_one_plain_forward_pass(sources: Batches) -> None:
    made = generated.settings()
    found, gradients = passed(sources, made, Accumulation())
    bridge = connector_card(made, sources.frozen, "0").bridge()
    loss = sources.losses(bridge, DRAWN).mean()
    loss.backward()
    assert found.loss == pytest.approx(float(loss.detach()), rel=1e-6)
    for name, one in bridge.named_parameters():
        assert one.grad is not None and torch.allclose(gradients[name], one.grad, rtol=1e-4, atol=1e-6), name


def test_bf16_stays_near_and_the_trained_weights_stay_fp32(sources: Batches) -> None:
    made = generated.settings()
    whole, gradients = passed(sources, made, Accumulation())
    found, near = passed(sources, made, Accumulation(numerics=partial(numerics, "bf16", "cpu")))
    assert found.loss != whole.loss and found.loss == pytest.approx(whole.loss, rel=2e-2)
    for name, gradient in gradients.items():
        cosine = torch.nn.functional.cosine_similarity(near[name].flatten(), gradient.flatten(), dim=0)
        assert near[name].dtype == torch.float32 and float(cosine) > 0.99, name


def test_a_bf16_run_learns_as_an_fp32_run_does(sources: Batches) -> None:
    curves = {}
    for precision in ("fp32", "bf16"):
        made = generated.settings(precision=precision, budget={"steps": 30})
        trained = train(made, sources.frozen, sources.corpora["web"], "0")
        assert all(one.dtype == torch.float32 for one in trained.bridge.parameters())
        curves[precision] = [loss for _, loss in trained.curve]
    assert curves["bf16"] != curves["fp32"]
    assert curves["bf16"] == pytest.approx(curves["fp32"], rel=0.1)
    assert curves["bf16"][-1] < 0.7 * curves["bf16"][0]


def test_what_is_not_finite_is_named_with_its_shard(sources: Batches) -> None:
    made = generated.settings()
    bridge = connector_card(made, sources.frozen, "0").bridge()
    tokens = sources.frozen.visual.parts[0].copy()
    tokens[12 + 5] = np.nan  # the image of photos/5
    broken = generated.frozen(("web", "photos"), 12)
    broken.visual.parts[0] = tokens
    corpora = {name: generated.corpus(name, range(12)) for name in ("web", "photos")}
    corpora["photos"] = generated.located(corpora["photos"], "data/photos/00003.tar")
    with pytest.raises(CuveeError, match=r"the loss is nan; .* look at samples photos/0005 \(photos/00003\.tar\)$"):
        Accumulation().gradient(Batches(broken, corpora), bridge, DRAWN)
    with torch.no_grad():
        next(bridge.parameters()).fill_(float("inf"))
    with pytest.raises(CuveeError, match="step 0: the loss is"):
        train_mixture(made, broken, corpora, "0", np.array([0.5, 0.5]))


@pytest.mark.parametrize("micro", [None, 3])
def test_layers_that_are_computed_twice_give_the_same_gradient(sources: Batches, micro: int | None) -> None:
    again = replace(sources, frozen=replace(sources.frozen, language=replace(sources.frozen.language, recompute=True)))
    whole, gradients = passed(sources, generated.settings(), Accumulation(micro=micro))
    found, twice = passed(again, generated.settings(), Accumulation(micro=micro))
    assert found.loss == whole.loss
    assert all(torch.equal(twice[name], gradient) for name, gradient in gradients.items())


def test_a_run_names_the_samples_of_a_spike_with_their_shards(
    sources: Batches, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That a spike is seen is tested beside the detector; here every step behind a window of 4 is one."""
    monkeypatch.setattr(watch, "WINDOW", 4)
    monkeypatch.setattr(watch, "DEVIATIONS", -1e9)
    corpus = generated.located(sources.corpora["web"], "exports/web/00007.tar")
    log = train(generated.settings(budget={"steps": 6}), sources.frozen, corpus, "0").log
    assert log["spikes"] == 2 and [spike["step"] for spike in log["spiked"]] == [4, 5]
    named = log["spiked"][0]["samples"]
    assert {sample["shard"] for sample in named} == {"web/00007.tar"}
    assert {sample["key"] for sample in named} == set(corpus.keys), "12 samples, 12 in a batch"
    losses = [sample["loss"] for sample in named]
    assert losses == sorted(losses, reverse=True)


def test_text_without_images_may_stand_alone_in_a_pass(sources: Batches) -> None:
    """It weighs in the mean, and has no gradient."""
    texts = replace(sources.corpora["photos"], images=("",) * 12)
    mixed = replace(sources, corpora={**sources.corpora, "photos": texts})
    whole, gradients = passed(mixed, generated.settings(), Accumulation())
    found, parts = passed(mixed, generated.settings(), Accumulation(micro=1))
    assert found.weight == whole.weight == 14 and found.loss == pytest.approx(whole.loss, rel=1e-6)
    assert whole.counts.visual == 8, "four of seven samples show an image"
    for name, gradient in gradients.items():
        assert torch.allclose(parts[name], gradient, rtol=1e-4, atol=1e-6), name

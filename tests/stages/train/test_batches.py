"""How samples of a batch stand changes neither losses nor gradients, only what they cost."""

from typing import Any

import numpy as np
import pytest

from stages.train.batches import Batches
from stages.train.bridge import Bridge
from stages.train.hearing import Manner, Sample, hear
from stages.train.layout import PADDING
from stages.train.loop import Frozen, train
from stages.train.samples import Corpus
from stages.train.templates import Template
from stages.train.vision_features import VisualTokens
from tests.stages.train.generated import settings
from tests.stages.train.language_models import WIDTH, language

IMAGES, VISUAL, FEATURES = 6, 5, 8
CHAT = Template((7, 8), (9, 10))


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    """24 captions of 6 images."""
    drawn = np.random.default_rng(0)
    lengths = drawn.integers(1, 9, 24)
    return Corpus(
        keys=tuple(f"k{i:02d}" for i in range(24)),
        images=tuple(f"i{i % IMAGES}" for i in range(24)),
        tokens=drawn.integers(20, 500, lengths.sum()).astype(np.int32),
        offsets=np.cumsum([0, *lengths], dtype=np.int64),
        whole=np.arange(24) % 3 > 0,
        unusable={},
    )


@pytest.fixture(scope="module")
def world() -> Frozen:
    tokens = np.random.default_rng(1).normal(size=(IMAGES, VISUAL, FEATURES)).astype(np.float16)
    return Frozen(language("llama"), VisualTokens([tokens], {f"i{i}": (0, i) for i in range(IMAGES)}))


def connector(**how: Any) -> Bridge:
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Bridge(torch.nn.Linear(FEATURES, WIDTH), **how)


MANNERS = (Manner(pack=64), Manner(share=True), Manner(pack=64, share=True))


@pytest.mark.parametrize("layer", [0, 2])
@pytest.mark.parametrize("manner", MANNERS, ids=str)
def test_the_same_losses_and_gradients(world: Frozen, corpus: Corpus, manner: Manner, layer: int) -> None:
    import torch

    bridge, drawn = connector(layer=layer), [("", i) for i in (3, 9, 0, 15, 21, 6, 7, 1, 3)]
    found = []
    for how in (Manner(), manner):
        losses = Batches(world, {"": corpus}, manner=how).losses(bridge, drawn)
        found.append((losses, torch.autograd.grad(losses.mean(), list(bridge.parameters()))))
    assert found[1][0].values.tolist() == pytest.approx(found[0][0].values.tolist(), rel=1e-5, abs=1e-5)
    assert (found[1][0].samples == found[0][0].samples).all()
    for mine, theirs in zip(found[1][1], found[0][1], strict=True):
        assert torch.allclose(mine, theirs, rtol=1e-4, atol=1e-6)


def test_an_image_is_shown_once_to_the_captions_that_share_it(world: Frozen, corpus: Corpus) -> None:
    samples = [Sample(corpus.caption(i), True, corpus.images[i]) for i in (0, 6, 12, 1, 7)]
    heard = hear(connector(), world, samples, Manner(share=True))
    assert heard.images.tolist() == [0, 0, 0, 1, 1] and len(heard.features) == 2
    assert (heard.layout.visual >= 0).sum() == 2 * VISUAL
    samples[1] = Sample(corpus.caption(6), True, corpus.images[6], CHAT)
    heard = hear(connector(), world, samples, Manner(share=True))
    assert heard.images.tolist() == [0, 1, 0, 2, 2], "another template, another beginning"
    assert hear(connector(), world, samples).images.tolist() == [0, 1, 2, 3, 4]


def test_text_without_an_image_stands_in_the_same_batch(world: Frozen, corpus: Corpus) -> None:
    import torch

    both = [Sample([30, 31], True, "i1"), Sample([40, 41, 42], False, ""), Sample([50], True, "")]
    for manner in (Manner(), *MANNERS):
        heard = hear(connector(), world, both, manner)
        assert heard.images.tolist() == [0, -1, -1]
        alone = torch.cat([hear(connector(), world, [sample]).cross_entropies() for sample in both])
        assert heard.cross_entropies().tolist() == pytest.approx(alone.tolist(), rel=1e-5)
    assert hear(connector(), world, both[1:]).shown is None


def test_each_sample_has_the_template_that_is_drawn_for_it(world: Frozen, corpus: Corpus) -> None:
    plain = world.language.template
    manner = Manner(templates=(plain, CHAT))
    batches, drawn = Batches(world, {"": corpus}, manner=manner), [("", i) for i in range(24)]
    assert {sample.template for sample in batches.samples(drawn)} == {None}, "evaluation and probes have the first"
    turns = [[sample.template for sample in batches.at(turn).samples(drawn)] for turn in ("0/1", "0/2", "0/1")]
    assert turns[0] == turns[2] != turns[1] and {*turns[0]} == {plain, CHAT}
    found = batches.at("0/1").losses(connector(), drawn).values
    samples = batches.at("0/1").samples(drawn)
    each = [nats for sample in samples for nats in hear(connector(), world, [sample]).cross_entropies().tolist()]
    assert found.tolist() == pytest.approx(each, rel=1e-5)


def test_a_connector_that_reads_the_prompt_is_given_its_states(world: Frozen, corpus: Corpus) -> None:
    """The states at the inject layer of the text before the caption, against transformers' hidden states."""
    import torch

    class Reading(torch.nn.Module):
        given: Any = None

        def forward(self, features: torch.Tensor, prompt: torch.Tensor, there: torch.Tensor) -> torch.Tensor:
            self.given = (prompt, there)
            mean = (prompt * there[..., None]).sum(dim=1, keepdim=True) / there.sum(dim=1)[:, None, None]
            return mean.expand(-1, 2, -1) + features.mean()

    reading, model = Reading(), world.language.model
    samples = [Sample([30, 31], True, "i1"), Sample([30, 31], True, "i2", CHAT)]
    hear(Bridge(reading, layer=2, reads_prompt=True), world, samples)
    prompt, there = reading.given
    assert there.tolist() == [[True, False, False, False], [True] * 4]
    for row, text in enumerate(([1], [7, 8, 9, 10])):
        states = model.model(torch.tensor([text]), output_hidden_states=True).hidden_states[2]
        assert torch.allclose(prompt[row, : len(text)], states[0], rtol=1e-5, atol=1e-4)


def test_packed_training_learns_the_same_and_costs_fewer_places(world: Frozen, corpus: Corpus) -> None:
    made = settings(budget={"steps": 4}, batch=16, hidden=16)
    together = settings(budget={"steps": 4}, batch=16, hidden=16, pack={"length": 64}, share_prefix=True)
    plain, packed = (train(one, world, corpus, "7/0") for one in (made, together))
    assert [loss for _, loss in packed.curve] == pytest.approx([loss for _, loss in plain.curve], rel=1e-4)
    batches, drawn = Batches(world, {"": corpus}), [("", i) for i in range(16)]
    places = [
        (hear(connector(), world, batches.samples(drawn), manner).layout.documents != PADDING).sum()
        for manner in (Manner(), Manner.of(together, world.language))
    ]
    assert places[1] == places[0] - (16 - IMAGES) * (VISUAL + 1)

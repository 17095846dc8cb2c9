"""Captions without their image, in one pass per corpus, against a second pass in which the image is masked."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from stages.train.batches import Batches
from stages.train.language_model import LanguageModel
from stages.train.layout import Said
from stages.train.objective import Objective
from stages.train.options.cal import Cal
from stages.train.run import Run
from stages.train.steering import Fixed
from stages.train.templates import Template
from stages.train.text_logits import cached_text_logits, text_logits
from tests.stages.train.generated import EOS, corpus, frozen, settings

PLACES = 3


@pytest.fixture(scope="module")
def language(model: Any) -> LanguageModel:
    return LanguageModel(model, None, 0, EOS, "cpu")


def said(template: Template) -> list[Said]:
    drawn = np.random.default_rng(0)
    captions = [drawn.integers(2, 500, length).tolist() for length in (1, 5, 3)]
    return [Said([*ids, EOS], 0, template.before, template.between) for ids in captions]


def masked(language: LanguageModel, one: Said) -> list[float]:
    """CAL as published: the whole sequence again, nothing may attend to the image."""
    text = [*one.before, *one.between, *one.ids[:-1]]
    embedded = language.embed(torch.tensor(text))
    split = len(one.before)
    image = torch.randn(PLACES, embedded.shape[1])
    whole = torch.cat([embedded[:split], image, embedded[split:]])[None]
    seen = torch.ones(1, whole.shape[1], dtype=torch.long)
    seen[:, split : split + PLACES] = 0
    logits = language.model(
        inputs_embeds=whole, attention_mask=seen, position_ids=torch.arange(whole.shape[1])[None], use_cache=False
    ).logits[0, -len(one.ids) :]
    return logits.gather(1, torch.tensor(one.ids)[:, None])[:, 0].tolist()


@pytest.mark.parametrize("template", [Template(between=(0,)), Template((5, 6), (7, 8, 9))])
def test_they_are_those_of_a_pass_in_which_the_image_is_masked(language: LanguageModel, template: Template) -> None:
    captions = said(template)
    found = text_logits(language, captions, PLACES)
    with torch.no_grad():
        for number, one in enumerate(captions):
            assert found.of(number) == pytest.approx(masked(language, one), abs=1e-4)


def test_they_do_not_depend_on_the_captions_beside_them(language: LanguageModel) -> None:
    captions = said(Template(between=(0,)))
    together = text_logits(language, captions, PLACES)
    for number, one in enumerate(captions):
        assert text_logits(language, [one], PLACES).of(0) == pytest.approx(together.of(number), abs=1e-5)


def test_where_images_enter_higher_up_text_below_counts_without_them(language: LanguageModel) -> None:
    """Against the layers one by one: below, text at its own positions; above, at those behind the image."""
    from stages.train.bridge import Bridge, Shown
    from stages.train.layout import lay_out

    captions = said(Template(between=(0,)))
    layout = lay_out(captions, PLACES)
    width = language.width
    nowhere = Shown(torch.zeros(len(captions), PLACES, width), layer=2)
    hidden = _masking(language, layout, nowhere, Bridge(torch.nn.Identity(), layer=2))
    found = text_logits(language, captions, PLACES, layer=2)
    labels = torch.from_numpy(layout.labels)
    assert found.values == pytest.approx(hidden.gather(1, labels[:, None])[:, 0].numpy(), abs=1e-4)


def _masking(language: LanguageModel, layout: Any, shown: Any, bridge: Any) -> torch.Tensor:
    """Logits of a layout whose images no text may attend to."""
    import stages.train.attention_masks as masks
    import stages.train.passes as passes

    def hidden(layout: Any, model: Any, device: str) -> Any:
        found = masks.attention_masks(replace(layout, documents=layout.documents * 1), model, device)
        rows, width = layout.tokens.shape
        causal = torch.ones(width, width, dtype=torch.bool).tril()[None].repeat(rows, 1, 1)
        seen = torch.from_numpy(layout.visual < 0)[:, None, :] | torch.eye(width, dtype=torch.bool)[None]
        allowed = (causal & seen)[:, None]
        made = torch.zeros(allowed.shape).masked_fill(~allowed, torch.finfo(torch.float32).min)
        return {name: made for name in found} if isinstance(found, dict) else made

    with pytest.MonkeyPatch.context() as patched, torch.no_grad():
        patched.setattr(passes, "attention_masks", hidden)
        return language.label_logits(layout, shown, bridge)


def test_kept_in_a_file_that_their_content_names(language: LanguageModel, tmp_path: Path) -> None:
    captions = said(Template(between=(0,)))
    first = cached_text_logits(language, "model", captions, PLACES, 0, tmp_path)
    (file,) = tmp_path.iterdir()
    np.save(file, first.values + 1)  # what is there is read, not computed
    again = cached_text_logits(language, "model", captions, PLACES, 0, tmp_path)
    assert np.array_equal(again.values, first.values + 1)
    others = [("other", captions, PLACES, 0), ("model", captions[:2], PLACES, 0)]
    others += [("model", captions, 4, 0), ("model", captions, PLACES, 1)]
    others += [("model", said(Template((1,), (0,))), PLACES, 0)]
    for number, other in enumerate(others, start=2):
        cached_text_logits(language, *other, tmp_path)
        assert len(list(tmp_path.iterdir())) == number


def test_weights_equal_those_of_two_passes(language: LanguageModel) -> None:
    """The bar: weights from the cached floats are those of a second pass in every step, to 1e-4."""
    world = replace(frozen(["a", "b"], 12), language=language)
    made = {name: corpus(name, range(12)) for name in ("a", "b")}
    run = Run.start(settings(token_weights={"kind": "cal"}), Batches(world, made), "0", Fixed(np.full(2, 0.5), 2))
    assert isinstance(run.objective, Objective)
    drawn = [("a", 3), ("b", 7), ("a", 5)]
    with torch.no_grad():
        losses = run.sources.under(run.objective).losses(run.bridge, drawn)
        plain = run.sources.losses(run.bridge, drawn)
        told = [Said([*made[name].caption(i), EOS], 0, (), (0,)) for name, i in drawn]
        places = run.belonging.card.places
        shown = language.show(run.bridge, world.embeddings([made[name].images[i] for name, i in drawn]))
        expected = []
        for row, one in enumerate(told):
            with_image = _shown(language, one, shown.tokens[row])
            without = _masked(language, one, places)
            expected.append(Cal().weights(with_image, without, torch.zeros(len(one.ids), dtype=torch.long)))
    assert torch.allclose(losses.weights, torch.cat(expected), atol=1e-4)
    assert torch.equal(losses.values, plain.values) and torch.equal(losses.samples, plain.samples)


def _shown(language: LanguageModel, one: Said, image: torch.Tensor) -> torch.Tensor:
    text = language.embed(torch.tensor([*one.between, *one.ids[:-1]]))
    logits = language.model(inputs_embeds=torch.cat([image, text])[None], use_cache=False).logits[0, -len(one.ids) :]
    return logits.gather(1, torch.tensor(list(one.ids))[:, None])[:, 0]


def _masked(language: LanguageModel, one: Said, places: int) -> torch.Tensor:
    text = language.embed(torch.tensor([*one.between, *one.ids[:-1]]))
    whole = torch.cat([torch.randn(places, language.width), text])[None]
    seen = (torch.arange(whole.shape[1]) >= places)[None].long()
    order = torch.arange(whole.shape[1])[None]
    out = language.model(inputs_embeds=whole, attention_mask=seen, position_ids=order, use_cache=False)
    return out.logits[0, -len(one.ids) :].gather(1, torch.tensor(list(one.ids))[:, None])[:, 0]

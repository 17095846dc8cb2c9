"""The shipped models, as a user loads them: offline, from their folders."""

import numpy as np
import pytest
from PIL import Image

from pipeline.demo.captions import PHRASINGS, boilerplate, caption
from pipeline.demo.defects import wrong_caption
from pipeline.demo.language_model import Document, _mean, _padded, encode, word_map
from pipeline.demo.recipe import ENCODER, LANGUAGE_MODEL
from pipeline.demo.render import DEMO_STYLES, draw
from pipeline.demo.scenes import draw_scene, pick, randomness
from pipeline.demo.spoken import named
from pipeline.demo.truth import area_under_curve

SEED = 4711
MEGABYTE = 2**20


@pytest.fixture(scope="module")
def pairs():
    """Fresh scenes in the styles the encoder was not trained on: images, true captions, captions of other scenes."""
    images, right, wrong = [], [], []
    for index in range(300):
        rng = randomness(SEED, "test-models", index)
        scene, phrasing = draw_scene(rng), pick(rng, ("plain", "notes", "alt_text"))
        images.append(Image.fromarray(draw(scene, pick(rng, tuple(DEMO_STYLES.values())), rng).pixels))
        right.append(caption(scene, phrasing, rng))
        wrong.append(wrong_caption(scene, phrasing, rng))
    return images, right, wrong


@pytest.fixture(scope="module")
def encoder(offline):
    import open_clip

    name = f"local-dir:{ENCODER}"
    model, _, preprocess = open_clip.create_model_and_transforms(name)
    return model.eval(), preprocess, open_clip.get_tokenizer(name)


@pytest.fixture(scope="module")
def offline():
    """Any look-up in a model hub fails at once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HUB_OFFLINE", "1")
        patch.setenv("TRANSFORMERS_OFFLINE", "1")
        yield


@pytest.fixture(scope="module")
def language_model(offline):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(LANGUAGE_MODEL)
    return model.eval(), AutoTokenizer.from_pretrained(LANGUAGE_MODEL)


def cosines(encoder, images: list[Image.Image], texts: list[str]) -> np.ndarray:
    import torch

    model, preprocess, tokenize = encoder
    with torch.inference_mode():
        seen = model.encode_image(torch.stack([preprocess(image) for image in images]), normalize=True)
        return (seen * model.encode_text(tokenize(texts), normalize=True)).sum(1).numpy()


def nll(language_model, texts: list[str], before: list[str] | None = None) -> float:
    """Mean nats per token of `text end`, after `start`, with `before` in front of that."""
    import torch

    model, tokenizer = language_model
    losses = []
    for text, context in zip(texts, before or [""] * len(texts), strict=True):
        first = [*tokenizer(context)["input_ids"], tokenizer.bos_token_id]
        said = [*tokenizer(text)["input_ids"], tokenizer.eos_token_id]
        with torch.inference_mode():
            logits = model(torch.tensor([[*first, *said]])).logits[0, len(first) - 1 : -1]
        losses += torch.nn.functional.cross_entropy(logits.float(), torch.tensor(said), reduction="none").tolist()
    return float(np.mean(losses))


def test_the_models_are_small():
    for folder in (ENCODER, LANGUAGE_MODEL):
        assert sum(path.stat().st_size for path in folder.iterdir()) < 5 * MEGABYTE
        assert not [path for path in folder.iterdir() if path.suffix not in (".json", ".safetensors")]


def test_mismatched_captions_are_caught(encoder, pairs):
    images, right, wrong = pairs
    assert area_under_curve(cosines(encoder, images, right), cosines(encoder, images, wrong)) >= 0.95


def test_boilerplate_scores_below_true_captions(encoder, pairs):
    """The demo's templates, of which the encoder saw none."""
    images, right, _ = pairs
    empty = [boilerplate(randomness(SEED, "test-empty", index)) for index in range(len(images))]
    assert area_under_curve(cosines(encoder, images, right), cosines(encoder, images, empty)) >= 0.95


def test_one_image_scores_the_same_in_any_company(encoder, pairs):
    images, right, _ = pairs
    alone = cosines(encoder, images[:1], right[:1])
    assert np.allclose(alone, cosines(encoder, images[:40], right[:40])[:1], atol=1e-5)


def test_captions_are_likely_and_noise_is_not(language_model, pairs):
    """Uniform over the vocabulary would be 6.9 nats a token."""
    _, right, _ = pairs
    fresh = nll(language_model, right[:100])
    shuffled = [" ".join(np.random.default_rng(1).permutation(text.split())) for text in right[:100]]
    assert fresh < 2.0 and nll(language_model, shuffled) > fresh + 1


def test_what_comes_before_decides_what_is_said(language_model):
    """Other words about the same scene make its caption likelier; words about another scene do not."""
    texts, same, other = [], [], []
    for index in range(100):
        rng = randomness(SEED, "test-context", index)
        scene = draw_scene(rng)
        texts.append(caption(scene, "plain", rng))
        same.append(caption(scene, "tags", rng))
        other.append(caption(draw_scene(rng), "tags", rng))
    assert nll(language_model, texts, same) < nll(language_model, texts) - 0.4
    assert nll(language_model, texts, other) > nll(language_model, texts, same) + 1


def test_a_map_in_words_is_put_into_a_caption(language_model):
    """What a connector relies on: vectors that mean several words at once decide what is said."""
    import torch

    model, tokenizer = language_model
    lines = []
    for index in range(40):
        rng = randomness(SEED, "test-map", index)
        scene = draw_scene(rng)
        shown = Document("", False, caption(scene, "plain", rng), word_map(scene, rng))
        ((bags, labels),) = encode([shown], tokenizer)
        before = len(shown.map) + 1  # and the token that a caption starts with
        prefix = _mean(model.get_input_embeddings(), _padded([(bags[:before], labels[:before])])[0])
        mask = torch.ones(1, before, dtype=torch.long)
        with torch.inference_mode():
            said = model.generate(inputs_embeds=prefix, attention_mask=mask, max_new_tokens=28, do_sample=False)
        lines.append({"true": shown.text, "written": tokenizer.decode(said[0], skip_special_tokens=True)})
    found = named(lines)
    assert found["shapes"] > 0.9 and found["colours"] > 0.9


@pytest.mark.parametrize("text", ["", "写真 ☕ \x00 \U0001f600", "a red circle", "x" * 500, "<|end|>"])
def test_any_text_has_tokens(encoder, language_model, text):
    _, tokenizer = language_model
    ids = tokenizer(text)["input_ids"]
    assert max(ids, default=0) < language_model[0].config.vocab_size
    assert tokenizer.decode(ids) == text
    tokens = encoder[2]([text])
    assert tokens.shape == (1, 32) and int(tokens.max()) == 1023


def test_every_phrasing_is_within_the_encoders_context(encoder):
    for index in range(200):
        rng = randomness(SEED, "test-length", index)
        scene = draw_scene(rng)
        for phrasing in PHRASINGS:
            assert int(encoder[2]([caption(scene, phrasing, rng)])[0, -1]) in (0, 1023)

"""The jobs that make the shipped models: the same seed gives the same files, another seed others."""

import hashlib
import re
from pathlib import Path

import pytest

from pipeline.demo import encoder, language_model
from pipeline.demo.captions import BOILERPLATE, boilerplate, thing
from pipeline.demo.scenes import draw_scene, randomness
from pipeline.demo.tokens import write_tokenizer


def digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


def quiet(_: str) -> None:
    pass


@pytest.mark.slow
def test_encoder_training_repeats(tmp_path):
    schedule = encoder.Schedule(scenes=1600, epochs=1)
    for name, seed in (("one", 1), ("two", 1), ("three", 2)):
        encoder.train_encoder(tmp_path / name, seed, schedule, quiet)
    assert digests(tmp_path / "one") == digests(tmp_path / "two")
    weights = [digests(tmp_path / name)["open_clip_model.safetensors"] for name in ("one", "three")]
    assert weights[0] != weights[1]


@pytest.mark.slow
def test_language_model_training_repeats(tmp_path):
    schedule = language_model.Schedule(documents=3200)
    for name in ("one", "two"):
        language_model.train_language_model(tmp_path / name, 1, schedule, quiet)
    assert digests(tmp_path / "one") == digests(tmp_path / "two")


def test_the_encoder_never_reads_the_demos_boilerplate():
    demo = re.compile("|".join(re.sub(r"\\{\w+\\}", r"\\d+", re.escape(text)) for text in BOILERPLATE["demo"]))
    assert all(demo.fullmatch(boilerplate(randomness(0, "test", index))) for index in range(300))
    assert not any(demo.fullmatch(encoder.empty_caption(0, index)) for index in range(2000))


def test_patch_labels_name_what_covers_the_patch():
    examples = encoder.training_examples(40, 3)
    patches = (encoder.IMAGE_PX // encoder.PATCH_PX) ** 2
    assert examples.images.shape == (40, encoder.IMAGE_PX, encoder.IMAGE_PX, 3)
    assert examples.cells.shape == (40, patches, 2)
    colours, shapes = tuple(encoder.COLOURS), encoder.SHAPES
    for cells, text in zip(examples.cells, examples.captions, strict=True):
        assert ((cells[:, 0] == 0) == (cells[:, 1] == 0)).all() and (cells[:, 0] == 0).any()
        named = {(colours[c - 1], shapes[s - 1]) for c, s in cells.tolist() if c}
        assert all(colour in text and shape in text for colour, shape in named), (named, text)


def test_too_few_texts_for_a_vocabulary_are_refused(tmp_path):
    with pytest.raises(ValueError, match="give more varied texts"):
        write_tokenizer(tmp_path, ["a red star"], 1024, lowercase=True, frame=True)


def test_documents_bear_loss_on_their_text_only():
    from transformers import AutoTokenizer

    from pipeline.demo.recipe import LANGUAGE_MODEL

    tokenizer = AutoTokenizer.from_pretrained(LANGUAGE_MODEL)
    documents = [language_model.document(0, index) for index in range(200)]
    assert {bool(item.before) for item in documents} == {bool(item.map) for item in documents} == {True, False}
    for item, (bags, labels) in zip(documents, language_model.encode(documents, tokenizer), strict=True):
        assert len(bags) == len(labels) <= language_model.LONGEST
        said = [label for label in labels if label != language_model.IGNORED]
        text = tokenizer.decode(said[:-1]) if said and said[-1] == tokenizer.eos_token_id else tokenizer.decode(said)
        assert item.text.startswith(text)
        assert all(bag == (label,) for bag, label in zip(bags, labels, strict=True) if label != -100)
        shown = [" ".join(tokenizer.decode([one]).strip() for one in bag) for bag in bags[: len(item.map)]]
        assert shown == [" ".join(place) for place in item.map]


def test_a_map_says_what_lies_where():
    scene = draw_scene(randomness(0, "test-map", 1))
    places = language_model.word_map(scene, randomness(0, "test-map", 2), forgotten=0)
    assert len(places) == language_model.SIDE**2
    centres = {(int(4 * y) * 4 + int(4 * x)): group for group in scene.groups for x, y in group.places}
    for place, group in centres.items():
        assert group.colour in places[place] and thing(group) in places[place]
    words = {word for group in scene.groups for word in (group.colour, thing(group))}
    assert {word for place in places for word in place} == words | {scene.backdrop}


def test_the_mean_of_a_bag_ignores_its_padding():
    import torch

    embedding = torch.nn.Embedding(5, 3)
    bags = torch.tensor([[[1, 2], [3, -1], [-1, -1]]])
    table = embedding.weight
    found = language_model._mean(embedding, bags)
    assert torch.allclose(found[0], torch.stack([(table[1] + table[2]) / 2, table[3], torch.zeros(3)]))

"""The clip stage against open_clip itself, on images and captions made here."""

import dataclasses
import io
import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from schemas.columns import CAPTION, IMAGE
from schemas.errors import RecipeError
from stages.alignment.clip.stage import Clip
from stages.clip_model.halves import halves
from stages.clip_model.images import prepared
from stages.clip_model.model import ClipModel, _unit_rows, upright_rgb
from stages.clip_model.texts import TextTower
from stages.pixels import PixelError

CAPTIONS = [
    "a red ball on the grass",
    "two dogs running",
    "a shoe",
    "two dogs running",
    "a blue bottle",
    "people in a park",
]


def pictures(count: int) -> list[bytes]:
    """Pictures of several sizes and modes, sound JPEG or PNG."""
    noise = np.random.Generator(np.random.Philox(5))
    found = []
    for number in range(count):
        small = noise.integers(0, 255, (5, 7, 3 if number % 3 else 4), dtype=np.uint8)
        image = Image.fromarray(small).resize((60 + 20 * number, 90), Image.Resampling.BICUBIC)
        buffer = io.BytesIO()
        image.save(buffer, "JPEG" if number % 3 else "PNG")
        found.append(buffer.getvalue())
    return found


@pytest.fixture(scope="module")
def stage(model_folder: Path) -> Clip:
    return Clip(model=str(model_folder), device="cpu")


@pytest.fixture(scope="module")
def model(stage: Clip) -> ClipModel:
    return stage.load()


def test_embeddings_are_those_of_open_clip(model: ClipModel, model_folder: Path) -> None:
    """One by one, in float32, the way its own loader (webdataset's pilrgb) and README do it."""
    import open_clip
    import torch

    network, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{model_folder}")
    network.eval()
    tokenize = open_clip.get_tokenizer(f"local-dir:{model_folder}")
    images = pictures(len(CAPTIONS))
    with torch.inference_mode():
        pixels = [preprocess(Image.open(io.BytesIO(image)).convert("RGB")) for image in images]
        by_image = torch.cat([network.encode_image(pixel[None], normalize=True) for pixel in pixels]).numpy()
        by_text = network.encode_text(tokenize(CAPTIONS), normalize=True).numpy()
    found_images, image_reasons = model.embed_images(images)
    found_texts, text_reasons = model.embed_texts(CAPTIONS)
    assert image_reasons == text_reasons == [None] * len(CAPTIONS)
    np.testing.assert_allclose(found_images, by_image, atol=2e-5)
    np.testing.assert_allclose(found_texts, by_text, atol=2e-5)


def test_score_is_the_cosine_of_the_stored_embeddings(stage: Clip) -> None:
    images = pa.array(pictures(len(CAPTIONS)), IMAGE.type)
    batch = pa.record_batch([images, pa.array(CAPTIONS, CAPTION.type)], pa.schema(stage.reads))
    scores = stage.open()(batch)
    image, text = (np.array(scores[name].to_pylist(), np.float64) for name in ("image_embedding", "text_embedding"))
    np.testing.assert_allclose(np.linalg.norm(image, axis=1), 1, atol=1e-3)
    np.testing.assert_allclose((image * text).sum(axis=1), scores["clip_score"].to_numpy(), atol=1e-3)
    assert len(set(scores["clip_score"].to_pylist())) == len(CAPTIONS)


def test_what_cannot_be_embedded_leaves_the_rest_in_place(model: ClipModel) -> None:
    images = pictures(5)
    mixed = [None, images[0], b"junk", images[1], images[2][:-5], images[3], images[4], b""]
    rows, reasons = model.embed_images(mixed)
    assert reasons == ["missing_image", None, "not_an_image", None, "truncated_image", None, None, "empty_image"]
    for place, image in ((1, 0), (3, 1), (5, 3), (6, 4)):
        np.testing.assert_allclose(rows[place], model.embed_images([images[image]])[0][0], atol=1e-5)
    assert not rows[[0, 2, 4, 7]].any()
    texts, reasons = model.embed_texts([None, "a dog", "", "a cat", " \n", "a dog"])
    assert reasons == ["missing_caption", None, "empty_caption", None, "empty_caption", None]
    np.testing.assert_array_equal(texts[1], texts[5])
    assert texts[1] @ texts[3] < 0.999


def test_a_row_half_known_keeps_its_half(stage: Clip) -> None:
    columns = [pa.array([pictures(1)[0], b"junk"], IMAGE.type), pa.array([None, "a dog"], CAPTION.type)]
    scores = stage.open()(pa.record_batch(columns, pa.schema(stage.reads)))
    assert scores["clip_reason"].to_pylist() == ["missing_caption", "not_an_image"]
    assert scores["image_embedding"].is_valid().to_pylist() == [True, False]
    assert scores["text_embedding"].is_valid().to_pylist() == [False, True]
    assert scores["clip_score"].null_count == 2


def test_other_code_in_the_process_cannot_change_the_bits(model: ClipModel) -> None:
    import torch

    expected = model.embed_images(pictures(3))[0]
    torch.set_num_threads(2)
    try:
        np.testing.assert_array_equal(model.embed_images(pictures(3))[0], expected)
    finally:
        torch.set_num_threads(1)


def test_decoding_ahead_keeps_order_and_pixels(model: ClipModel) -> None:
    """The threads that feed a GPU give what a plain loop gives."""

    def pixels(image: bytes) -> Any:
        try:
            return model.preprocess(upright_rgb(image))
        except PixelError as error:
            return error.reason

    images = [*pictures(4), b"junk", *pictures(5)]
    ahead, plain = (list(prepared(images, pixels, 3, ahead=threads)) for threads in (True, False))
    assert len(ahead) == len(images) and ahead[4] == "not_an_image"
    assert all(
        one is other or isinstance(one, str) or bool((one == other).all())
        for one, other in zip(ahead, plain, strict=True)
    )
    assert list(prepared([], pixels, 3, ahead=True)) == []


@pytest.mark.parametrize("ahead", [False, True])
def test_what_has_no_pixels_costs_no_pass(model: ClipModel, ahead: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """9 sound images among 36 are 3 passes of 4, and have the bits that they have without the others."""
    images = pictures(9)
    expected, run, shapes = model.embed_images(images)[0], ClipModel._run, []

    def noted(self: ClipModel, encode: Any, batch: Any) -> Any:
        shapes.append(len(batch))
        return run(self, encode, batch)

    monkeypatch.setattr(ClipModel, "_run", noted)
    monkeypatch.setattr("stages.clip_model.model.prepared", lambda *given, **_: prepared(*given, ahead=ahead))
    rows, reasons = model.embed_images([image for sound in images for image in (None, b"", sound, b"junk")])
    assert shapes == [4, 4, 4]
    assert reasons == ["missing_image", "empty_image", None, "not_an_image"] * 9
    np.testing.assert_array_equal(rows[2::4], expected)
    assert not np.delete(rows, np.s_[2::4], axis=0).any()


def test_slices_in_several_threads_keep_their_bits(model: ClipModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU has two slices before it: they share decoders, buffers and what is remembered of captions."""
    monkeypatch.setattr("stages.clip_model.model.prepared", lambda *given, **_: prepared(*given, ahead=True))
    fresh = dataclasses.replace(model)
    slices = [(pictures(count), [f"{count} {text}" for text in CAPTIONS]) for count in (9, 5, 7, 6)]
    expected = [(model.embed_images(images)[0], model.embed_texts(texts)[0]) for images, texts in slices]
    with ThreadPoolExecutor(4) as threads:
        for _ in range(3):
            found = list(threads.map(lambda given: fresh.embed_pairs(*given), slices))
            for ((images, _), (texts, _)), (of_images, of_texts) in zip(found, expected, strict=True):
                np.testing.assert_array_equal(images, of_images)
                np.testing.assert_array_equal(texts, of_texts)


def test_bits_depend_on_the_sample_alone(model: ClipModel) -> None:
    """Not on neighbours, place, order or what is remembered: that is what lets captions be embedded once a worker."""
    images = pictures(9)
    together = model.embed_images(images)[0]
    for chosen in ([8, 3, 0], [5], [2, 2, 2, 2, 2], list(range(9))[::-1]):
        np.testing.assert_array_equal(model.embed_images([images[place] for place in chosen])[0], together[chosen])
    noise = np.random.Generator(np.random.Philox(7))
    words = [
        "a",
        "dog",
        "runs",
        "over",
        "the",
        "green",
        "grass",
        "and",
        "two",
        "people",
        "stand",
        "beside",
        "red",
        "cars",
    ]
    texts = [" ".join(noise.choice(words, count)) for count in noise.integers(1, 40, 90)]
    fresh = dataclasses.replace(model)
    together = fresh.embed_texts(texts)[0]
    for chosen in (noise.permutation(90)[:20], np.array([5]), noise.permutation(90)):
        some = [texts[place] for place in chosen]
        np.testing.assert_array_equal(fresh.embed_texts(some)[0], together[chosen])
        np.testing.assert_array_equal(dataclasses.replace(model).embed_texts(some)[0], together[chosen])


def test_captions_are_embedded_once_a_worker(model: ClipModel, monkeypatch: pytest.MonkeyPatch) -> None:
    fresh, passes = dataclasses.replace(model), []
    tower = fresh._texts
    run = tower.run
    monkeypatch.setattr(tower, "run", lambda encode, batch: passes.append(tuple(batch.shape)) or run(encode, batch))
    first, _ = fresh.embed_texts([*CAPTIONS, "a dog " * 30])
    assert len(passes) == 2 and passes[0][1] < passes[1][1]  # short ones together, the long one in a context of its own
    second, reasons = fresh.embed_texts(["a shoe", None, "a blue bottle", "a shoe"])
    assert len(passes) == 2 and reasons == [None, "missing_caption", None, None]
    np.testing.assert_array_equal(second[[0, 2, 3]], first[[2, 4, 2]])
    monkeypatch.setattr("stages.clip_model.texts.CACHE_BYTES", 3 * 2000)
    fresh.embed_texts([f"number {number}" for number in range(50)])
    assert 0 < len(tower.known) <= 20 and tower.bytes <= 3 * 2000
    np.testing.assert_array_equal(fresh.embed_texts(["a shoe"])[0][0], first[2])


@pytest.mark.parametrize("custom", [False, True])
def test_a_shorter_context_changes_no_feature(custom: bool) -> None:
    """CLIP and its variant with a text tower of its own, at random weights; and one that looks ahead is left whole."""
    import open_clip
    import torch

    torch.manual_seed(0)
    vision = {"image_size": 32, "patch_size": 16, "width": 32, "head_width": 16, "layers": 1}
    text = {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2}
    make = open_clip.CustomTextCLIP if custom else open_clip.CLIP
    run = lambda encode, batch: encode(batch)  # noqa: E731
    texts = ["a dog", "two dogs running in a park beside a lake " * 3, "word " * 200]
    tokenize = open_clip.get_tokenizer("ViT-B-32")
    with torch.inference_mode():
        network = make(16, vision, text).eval()
        tower = TextTower(network, tokenize, run, 4)
        np.testing.assert_allclose(tower.features(texts), network.encode_text(tokenize(texts)).numpy(), atol=1e-5)
        assert sorted(tower.encoders) == [8, 32, 77]
        both_ways = make(16, vision, {**text, "no_causal_mask": True}).eval()
        tower = TextTower(both_ways, tokenize, run, 4)
        np.testing.assert_allclose(tower.features(texts), both_ways.encode_text(tokenize(texts)).numpy(), atol=1e-5)
        assert sorted(tower.encoders) == [77]


@pytest.mark.parametrize("settings", [{"dtype": "amp_bf16"}, {"dtype": "bf16"}])
def test_half_the_bits_give_nearly_the_same_directions(
    model: ClipModel, model_folder: Path, settings: dict[str, Any]
) -> None:
    other = Clip(model=str(model_folder), device="cpu", **settings).load()
    for embed, items in (("embed_images", pictures(3)), ("embed_texts", CAPTIONS)):
        found, reasons = getattr(other, embed)(items)
        assert reasons == [None] * len(items) and found.dtype == np.float32
        cosines = (found * getattr(model, embed)(items)[0]).sum(axis=1)
        assert cosines.min() > 0.98


def test_rows_without_a_norm_get_a_reason() -> None:
    features = np.array([[3, 4], [0, 0], [np.nan, 1], [np.inf, 1]], np.float32)
    rows, reasons = _unit_rows(features, [None, "missing_image", None, None, None])
    np.testing.assert_allclose(rows[0], [0.6, 0.8], rtol=1e-6)
    assert reasons == [None, "missing_image", "no_embedding", "no_embedding", "no_embedding"]
    assert np.isfinite(rows).all() and not rows[1:].any()


def test_weights_of_another_shape_do_not_load(model_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(model_folder, folder)
    config = json.loads((folder / "open_clip_config.json").read_text())
    config["model_cfg"]["embed_dim"] += 8
    (folder / "open_clip_config.json").chmod(0o644)
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    with pytest.raises(RecipeError, match=r"does not load: [\s\S]*size mismatch"):
        Clip(model=str(folder), device="cpu").open()


def test_auto_is_resolved_when_the_settings_are_made(model_folder: Path) -> None:
    import torch

    expected = "cuda" if torch.cuda.is_available() else "cpu"
    stage = Clip(model=str(model_folder))
    assert stage.device == expected == stage.model_dump()["device"] == stage.identity()["device"]
    other = Clip(model=str(model_folder), device="cpu", threads=2)
    assert other.identity() != Clip(model=str(model_folder), device="cpu").identity()


def test_cuda_where_there_is_none_is_refused(model_folder: Path) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a CUDA device")
    with pytest.raises(RecipeError, match="no CUDA device"):
        Clip(model=str(model_folder), device="cuda").open()


def test_a_gpu_agrees_with_the_cpu(model: ClipModel, model_folder: Path) -> None:
    import torch

    if not torch.cuda.is_available():
        pytest.skip("this machine has no CUDA device")
    gpu = Clip(model=str(model_folder), device="cuda").load()
    np.testing.assert_allclose(gpu.embed_images(pictures(6))[0], model.embed_images(pictures(6))[0], atol=2e-3)
    np.testing.assert_allclose(gpu.embed_texts(CAPTIONS)[0], model.embed_texts(CAPTIONS)[0], atol=2e-3)
    again = Clip(model=str(model_folder), device="cuda").load()
    np.testing.assert_array_equal(gpu.embed_images(pictures(6))[0], again.embed_images(pictures(6))[0])


def test_of_a_caption_without_end_the_beginning_counts(model: ClipModel) -> None:
    long = "two dogs running in a park " * 40
    texts = [long, f"  {long}" + "x" * (4 << 20), " " * (1 << 20) + long, "x" * (16 << 20), "<" * (16 << 20)]
    embeddings, reasons = model.embed_texts(texts)
    assert reasons == [None] * len(texts)
    np.testing.assert_allclose(embeddings[1:3], embeddings[[0, 0]], atol=1e-6)


def test_a_strip_is_scored_by_its_middle(model: ClipModel) -> None:
    """Scaled to the model's input as it is, it would take 4 GiB."""
    middle = Image.fromarray(np.random.Generator(np.random.Philox(6)).integers(0, 255, (513, 1, 3), dtype=np.uint8))
    strip = Image.new("RGB", (1, 20_001))
    strip.paste(middle, (0, 9_744))
    files = []
    for picture in (strip, middle):
        buffer = io.BytesIO()
        picture.save(buffer, "PNG")
        files.append(buffer.getvalue())
    embeddings, reasons = model.embed_images(files)
    assert reasons == [None, None]
    np.testing.assert_allclose(embeddings[0], embeddings[1], atol=1e-3)


def test_a_second_model_has_columns_of_its_own(stage: Clip, model_folder: Path) -> None:
    second = Clip(model=str(model_folder), device="cpu", column="second")
    assert second.name == "clip_second"
    names = ["second_image_embedding", "second_text_embedding", "second_clip_score", "clip_second_reason"]
    assert second.returns().names == names
    assert second.widths() == {f"second_{name}": width for name, width in stage.widths().items()}
    batch = pa.record_batch([pa.array(pictures(2), IMAGE.type), pa.array(CAPTIONS[:2])], pa.schema([IMAGE, CAPTION]))
    found, known = second.open()(batch), stage.open()(batch)
    assert [column.to_pylist() for column in found.columns] == [column.to_pylist() for column in known.columns]
    assert found.schema.names == names


@pytest.mark.parametrize("ahead", [False, True])
def test_a_strip_fits_a_model_that_scales_the_longer_side(model: ClipModel, ahead: bool) -> None:
    """Scaled as it is, it would be less than half a pixel wide."""
    import torch
    from open_clip.transform import PreprocessCfg, image_transform_v2

    longest = image_transform_v2(PreprocessCfg(size=64, resize_mode="longest"), is_train=False)
    fresh = dataclasses.replace(model, preprocess=longest)
    vars(fresh)["_halves"] = halves(longest, "cpu", torch.float32) if ahead else None
    for size in ((1, 300), (300, 1), (2, 4000), (1, 64), (64, 48)):
        assert fresh.pixels(Image.new("RGB", size, "red")).shape == (3, 64, 64)

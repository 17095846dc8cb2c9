"""Preprocessing in two halves, as before a GPU, against open_clip's own: the same but for a level here and there."""

import dataclasses
import io
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image, ImageDraw
from torchvision.transforms import Compose, RandomHorizontalFlip, Resize

from stages.alignment.clip.stage import Clip
from stages.alignment.tmars import Tmars
from stages.clip_model.halves import Halves, halves
from stages.clip_model.model import ClipModel, upright_rgb

SIZES = [(641, 427), (333, 500), (97, 31), (64, 64), (50, 49), (1200, 801), (1, 200), (40, 900)]
"""Landscape, portrait, larger and smaller than a model's input, of its very size, strips."""
MODES = ["RGB", "P", "L", "RGBA", "LA", "1"]
STANDARD = [
    {"size": 64},
    {"size": 64, "interpolation": "bilinear"},
    {"size": 64, "resize_mode": "squash"},
    {"size": (48, 80), "resize_mode": "squash", "interpolation": "bilinear"},
    {"size": (48, 80)},
    {"size": 64, "resize_mode": "longest", "fill_color": 120},
    {"size": 64, "mean": (0.5,) * 3, "std": (0.5,) * 3},
]


def scenes() -> list[bytes]:
    """Soft colours, hard edges and a little noise, like photographs; files of every mode and size."""
    noise, found = np.random.Generator(np.random.Philox(41)), []
    for number, size in enumerate(SIZES * 2):
        coarse = Image.fromarray(noise.integers(0, 255, (6, 6, 3), dtype=np.uint8))
        picture = coarse.resize(size, Image.Resampling.BICUBIC)
        ImageDraw.Draw(picture).ellipse((0, 0, size[0] // 2, size[1] // 2), fill=(250, 20, 10))
        grain = noise.normal(0, 6, (size[1], size[0], 3))
        picture = Image.fromarray((np.asarray(picture) + grain).clip(0, 255).astype(np.uint8))
        buffer = io.BytesIO()
        picture.convert(MODES[number % len(MODES)]).save(buffer, "PNG")
        found.append(buffer.getvalue())
    return found


def made(settings: dict[str, Any]) -> Any:
    return image_transform_v2(PreprocessCfg(**settings), is_train=False)


@pytest.mark.parametrize("settings", STANDARD, ids=str)
def test_numbers_are_those_of_the_whole_preprocessing(settings: dict[str, Any]) -> None:
    """At most 2 levels of 255 apart, in 3 of 100 values of any picture and 5 of 1,000 of the middle one."""
    preprocess = made(settings)
    split = halves(preprocess, "cpu", torch.float32)
    assert split is not None
    level = 1 / 255 / torch.tensor(preprocess.transforms[-1].std).view(3, 1, 1)
    shares = []
    for scene in scenes():
        if settings.get("resize_mode") == "longest" and min(upright_rgb(scene).size) == 1:
            continue  # such a strip would have no pixel across
        picture = upright_rgb(scene)
        pixels, whole = split.pixels(picture), preprocess(picture)
        assert pixels.dtype == torch.uint8 and pixels.is_contiguous() and pixels.shape == whole.shape
        apart = (split.numbers(pixels[None])[0] - whole).abs() / level
        assert apart.max() < 2.01
        shares.append(float((apart > 0.01).float().mean()))
    assert np.median(shares) < 0.005 and max(shares) < 0.03


def test_a_flat_picture_keeps_its_level() -> None:
    for settings in STANDARD[:2]:
        split = halves(made(settings), "cpu", torch.float32)
        assert split is not None
        for value in (0, 127, 255):
            pixels = split.pixels(Image.new("RGB", (2999, 1999), (value,) * 3))
            assert pixels.min() == value == pixels.max()


def test_a_batch_has_the_dtype_and_layout_of_the_model() -> None:
    split = halves(made({"size": 32}), "cpu", torch.bfloat16)
    assert split is not None
    batch = torch.zeros(2, 3, 32, 32, dtype=torch.uint8).contiguous(memory_format=torch.channels_last)
    numbers = split.numbers(batch)
    assert numbers.dtype == torch.bfloat16 and numbers.is_contiguous(memory_format=torch.channels_last)
    assert not batch.any()


def test_other_steps_are_left_whole() -> None:
    own = made({"size": 64}).transforms
    squashed = made({"size": 64, "resize_mode": "squash"}).transforms
    others = [
        Compose([RandomHorizontalFlip(), *own]),
        Compose([*own, torch.nn.Identity()]),
        Compose([Resize(64, max_size=90), *own[1:]]),
        Compose([Resize(64), *squashed[1:]]),  # no one shape
        Compose([Resize(64, interpolation=open_clip.transform.InterpolationMode.LANCZOS), *own[1:]]),
        image_transform_v2(PreprocessCfg(size=64), is_train=True),
        lambda picture: picture,
    ]
    assert [halves(other, "cpu", torch.float32) for other in others] == [None] * len(others)


def test_embeddings_are_nearly_those_of_the_cpu(model_folder: Path) -> None:
    model = Clip(model=str(model_folder), device="cpu").load()
    fresh = dataclasses.replace(model)
    split = halves(model.preprocess, "cpu", torch.float32)
    vars(fresh)["_halves"] = split
    assert isinstance(split, Halves) and model._halves is None
    images = [*scenes(), b"junk"]
    (found, reasons), (expected, told) = fresh.embed_images(images), model.embed_images(images)
    assert reasons == told == [None] * (len(images) - 1) + ["not_an_image"]
    assert (found * expected)[:-1].sum(axis=1).min() > 0.9999
    np.testing.assert_array_equal(fresh.embed_images(images[5:6])[0][0], found[5])  # a place and a pass of its own


def test_only_addresses_of_gpus_tell_of_it(model_folder: Path) -> None:
    for stage in (Clip, Tmars):
        cpu, cuda = (stage(model=str(model_folder), device=device).identity() for device in ("cpu", "cuda"))
        assert set(cuda) - set(cpu) == {"preprocess"}


def test_a_gpu_model_has_halves_and_a_cpu_model_none(model_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = Clip(model=str(model_folder), device="cpu").load()
    asked: list[str] = []
    monkeypatch.setattr("stages.clip_model.model.halves", lambda _, device, __: asked.append(device))
    assert model._halves is None and asked == []
    other: ClipModel = dataclasses.replace(model, device="cuda")
    assert other._halves is None and asked == ["cuda"]

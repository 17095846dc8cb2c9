"""T-MARS: the filling by hand, the scores by open_clip's own passes, and a model that really reads what is lettered."""

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pyarrow as pa
import pytest
import torch
from PIL import Image, ImageDraw, ImageFont
from safetensors.torch import save_file

from schemas.columns import CAPTION, IMAGE
from stages.alignment.clip.stage import Clip
from stages.alignment.tmars import MOST_PIXELS, Tmars, fill_regions, without_text

WORDS, QUIET = ("HOLIDAY", "DISCOUNT"), "a quiet landscape"


def backdrop(number: int, size: int = 128) -> Image.Image:
    """Soft colours, another picture for each number, no text in it."""
    noise = np.random.Generator(np.random.Philox([17, number]))
    coarse = noise.integers(130, 180, (3, 3, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((size, size), Image.Resampling.BICUBIC)


def lettered(number: int, word: str) -> Image.Image:
    """The backdrop of a number with a word across it."""
    noise = np.random.Generator(np.random.Philox([18, number]))
    picture, place = backdrop(number), tuple(noise.uniform([4, 45], [8, 49]))
    ImageDraw.Draw(picture).text(place, word, fill=(0, 0, 0), font=ImageFont.load_default(20))
    return picture


def plated(number: int) -> Image.Image:
    """The backdrop of a number with a blank plate of its own colour where others have a word."""
    noise = np.random.Generator(np.random.Philox([18, number]))
    picture, (left, top) = backdrop(number), noise.uniform([4, 45], [8, 49]).tolist()
    plate = (left, top + 3, left + 110, top + 24)
    colour = picture.resize((1, 1), Image.Resampling.BOX, plate).getpixel((0, 0))
    ImageDraw.Draw(picture).rectangle(plate, fill=colour)
    return picture


def png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def test_regions_take_the_mean_colour_around_them() -> None:
    pixels = np.zeros((40, 60, 3), np.uint8)
    pixels[:, :30], pixels[:, 30:] = (200, 100, 0), (10, 20, 31)
    mask = np.zeros((40, 60), bool)
    mask[10:14, 5:20] = mask[30:34, 40:50] = True
    pixels[mask] = 255
    filled = fill_regions(pixels, mask)
    assert (filled[10:14, 5:20] == (200, 100, 0)).all() and (filled[30:34, 40:50] == (10, 20, 31)).all()
    np.testing.assert_array_equal(filled[~mask], pixels[~mask])
    assert pixels[mask].min() == 255  # a copy
    mask[:] = True
    assert len(np.unique(fill_regions(pixels, mask).reshape(-1, 3), axis=0)) == 1
    by_hand = np.round(pixels.reshape(-1, 3).mean(axis=0))
    np.testing.assert_allclose(fill_regions(pixels, mask)[0, 0], by_hand, atol=1)


def test_a_border_takes_from_both_sides() -> None:
    """A region of 4 x 4 at the rim: its surroundings end with the image, and are averaged in whole levels."""
    pixels = np.full((20, 20, 3), 100, np.uint8)
    mask = np.zeros((20, 20), bool)
    mask[:4, 8:12] = True
    pixels[:8, 4:8] = 41  # of the 12 x 8 around it, 32 pixels left
    around = np.concatenate([pixels[:8, 4:8].reshape(-1), pixels[:8, 12:16].reshape(-1), pixels[4:8, 8:12].reshape(-1)])
    assert int(fill_regions(pixels, mask)[0, 8, 0]) == int(np.floor(around.mean() + 0.5))


def test_text_goes_and_the_rest_stays() -> None:
    shown, area = without_text(backdrop(1))
    assert area == 0 and shown.tobytes() == backdrop(1).tobytes()
    shown, area = without_text(lettered(1, "HOLIDAY"))
    assert 0.1 < area < 0.25, "the detector sees otherwise than it did: raise the version of tmars"
    assert np.asarray(lettered(1, "HOLIDAY")).max(axis=2).min() == 0  # black ink
    assert np.asarray(shown).max(axis=2).min() > 120
    large = Image.new("RGB", (3000, 2000), (90, 120, 90))
    shown, area = without_text(large)
    assert area == 0 and MOST_PIXELS * 0.99 < shown.width * shown.height <= MOST_PIXELS


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An open_clip model that tells which of two words stands on a picture: random towers, projections fitted here."""
    folder = tmp_path_factory.mktemp("reader")
    vision = {"image_size": 64, "patch_size": 8, "width": 384, "head_width": 64, "layers": 1}
    text = {"context_length": 16, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1}
    preprocess = {"mean": [0.5] * 3, "std": [0.25] * 3, "interpolation": "bicubic", "resize_mode": "squash"}
    config = {"model_cfg": {"embed_dim": 8, "vision_cfg": vision, "text_cfg": text}, "preprocess_cfg": preprocess}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    torch.manual_seed(0)
    network = open_clip.CLIP(8, vision, text).requires_grad_(False)
    directions = torch.eye(3, 8)  # one for each of the captions
    tokens = open_clip.get_tokenizer("ViT-B-32", context_length=16)([*WORDS, QUIET])
    network.text_projection.copy_(fitted(network, "text_projection", "encode_text", tokens, directions, 1e-6))
    pixels, kinds = training_set()
    network.visual.proj.copy_(fitted(network.visual, "proj", "forward", pixels, directions[kinds], 1e-2))
    save_file(network.state_dict(), folder / "open_clip_model.safetensors")
    return folder


def fitted(
    tower: Any, projection: str, forward: str, batch: torch.Tensor, wanted: torch.Tensor, ridge: float
) -> torch.Tensor:
    """The projection that takes the tower's features closest to what is wanted of them."""
    kept = getattr(tower, projection)
    setattr(tower, projection, None)
    features = torch.cat([getattr(tower, forward)(part) for part in batch.split(32)]).double()
    setattr(tower, projection, kept)
    gram = features.T @ features + ridge * len(features) * torch.eye(features.shape[1])
    return torch.linalg.solve(gram, features.T @ wanted.double()).float()


def training_set() -> tuple[torch.Tensor, torch.Tensor]:
    """Pictures with the first word, the second, a blank plate; numbers from 1000 on, which no test looks at."""
    pictures, kinds = [], []
    for number in range(1000, 1900):
        kinds.append(number % 3)
        picture = plated(number) if number % 3 == 2 else lettered(number, WORDS[number % 3])
        small = np.asarray(picture.resize((64, 64), Image.Resampling.BICUBIC), np.float32)
        pictures.append(torch.from_numpy(small / 255).permute(2, 0, 1))
    return (torch.stack(pictures) - 0.5) / 0.25, torch.tensor(kinds)


def scored(reader: Path, images: list[bytes | None], captions: list[str | None]) -> dict[str, Any]:
    """What clip and then tmars write, by column."""
    clip, tmars = Clip(model=str(reader), device="cpu"), Tmars(model=str(reader), device="cpu")
    columns = {IMAGE.name: pa.array(images, IMAGE.type), CAPTION.name: pa.array(captions, CAPTION.type)}
    for stage in (clip, tmars):
        inputs = pa.record_batch([columns[field.name] for field in stage.reads], pa.schema(stage.reads))
        scores = stage.open()(inputs)
        columns |= {name: scores[name] for name in scores.schema.names}
    return {name: column.to_pylist() for name, column in columns.items()}


def test_a_caption_that_only_repeats_the_lettering_falls(reader: Path) -> None:
    images = [png(lettered(number, WORDS[number % 2])) for number in range(12)] + [png(backdrop(50)), png(backdrop(51))]
    captions = [WORDS[number % 2] for number in range(12)] + [QUIET] * 2
    found = scored(reader, images, captions)
    plain, masked = np.array(found["clip_score"]), np.array(found["clip_score_masked"])
    text = np.array(found["masked_area"]) > 0
    assert text.tolist() == [True] * 12 + [False] * 2
    assert plain[:12].min() > 0.7 and masked[:12].max() < 0.3
    assert (masked[:12] < plain[:12]).all()
    np.testing.assert_array_equal(masked[12:], plain[12:])
    assert (masked[12:] > masked[:12].max()).all()  # what top_fraction keeps


def test_scores_are_those_of_the_same_model_on_the_filled_image(reader: Path) -> None:
    network, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{reader}")
    tokenize = open_clip.get_tokenizer(f"local-dir:{reader}")
    picture, area = without_text(lettered(3, "DISCOUNT"))
    with torch.inference_mode():
        image = network.eval().encode_image(preprocess(picture)[None], normalize=True)
        text = network.encode_text(tokenize(["a word"]), normalize=True)
    found = scored(reader, [png(lettered(3, "DISCOUNT"))], ["a word"])
    assert found["clip_score_masked"][0] == pytest.approx(float((image * text).sum()), abs=1e-3)
    assert found["masked_area"][0] == pytest.approx(area)


def test_what_cannot_be_scored_has_a_reason(reader: Path) -> None:
    found = scored(reader, [png(backdrop(1)), b"junk", None, png(lettered(2, "HOLIDAY"))], [None, "a", "a", ""])
    assert found["tmars_reason"] == ["missing_embedding", "not_an_image", "missing_image", "missing_embedding"]
    assert found["clip_score_masked"] == [None] * 4 == found["masked_area"]


def test_a_recipe_takes_every_setting_from_its_clip_step(make_pool: Callable[..., Path], reader: Path) -> None:
    from pipeline.resolve import resolve

    recipe = make_pool(shards=1, rows=2)
    steps = f'  - {{kind: clip, model: "{reader}", device: cpu, threads: 2, compile: true}}\n  - {{kind: tmars}}\n'
    rule = "select: [{kind: top_fraction, column: clip_score_masked, fraction: 0.5}]\n"
    recipe.write_text(recipe.read_text().replace("score:\n", f"score:\n{steps}") + rule)
    clip, tmars = resolve(recipe).stages[:2]
    assert {name: getattr(tmars, name) for name in tmars.shares} == {name: getattr(clip, name) for name in tmars.shares}
    assert clip.compile and {*Tmars.model_fields} - {*tmars.shares} == {
        "kind",
        "optional",
    }  # else two models are loaded

"""A connector as a LLaVA folder: what transformers loads computes what was trained, and the rest is refused."""

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from schemas.errors import RecipeError
from stages.train.bridge import Bridge
from stages.train.connectors.contract import Grid
from stages.train.connectors.linear import Linear
from stages.train.connectors.mlp import Mlp
from stages.train.language_model import LanguageModel, load_language_model
from stages.train.llava import MOST_APART, write_llava
from stages.train.llava.tower import clip_config, clip_weights
from stages.train.llava.write import llava_logits, own_logits
from stages.train.templates import Template
from stages.train.vision_tower import VisionTower, load_tower, spatial_features
from tests.stages.train.conftest import draw

TEXT = {"context_length": 4, "vocab_size": 9, "width": 8, "heads": 1, "layers": 1}
CELLS = 64
"""Of the tiny tower: 32 pixels in patches of 4."""


@pytest.fixture(scope="session")
def tower(vision_folder: Path) -> VisionTower:
    return load_tower(str(vision_folder), None, CELLS)


@pytest.fixture(scope="session")
def language(language_folder: Path) -> LanguageModel:
    return load_language_model(language_folder)


def bridge(connector: Any = None, **how: Any) -> Bridge:
    return Bridge((connector or Mlp()).build(24, 32, 0, Grid(8, 8)), **how)


def pictures() -> list[Image.Image]:
    return [Image.open(io.BytesIO(draw(number, 50))).convert("RGB") for number in range(3)]


@pytest.mark.parametrize(
    ("connector", "layer"), [(Mlp(), -1), (Mlp(hidden=20), -2), (Linear(), -1), (Mlp(), -2)], ids=str
)
def test_what_transformers_loads_computes_what_was_trained(
    tower: VisionTower, language: LanguageModel, tmp_path: Path, connector: Any, layer: int
) -> None:
    from transformers import AutoModelForImageTextToText, AutoProcessor

    trained, tower = bridge(connector), replace(tower, layer=layer)
    if layer == -2:
        words = language.tokenize(["the table", "a red star"])
        language = replace(language, templates=(Template(tuple(words[0]), (language.bos or 0, *words[1])),))
    told = write_llava(tmp_path / "llava", trained, tower, language, 7)
    assert told["largest_difference"] <= MOST_APART
    model = AutoModelForImageTextToText.from_pretrained(tmp_path / "llava").eval()
    kind = "VipLlavaForConditionalGeneration" if layer == -1 else "LlavaForConditionalGeneration"
    assert type(model).__name__ == kind
    pixels = torch.stack([tower.preprocess(picture) for picture in pictures()])
    captions = torch.tensor(language.tokenize(["a red star", "the large table", "green circle on"])[0])[None].expand(
        3, -1
    )
    mine = own_logits(trained, tower, language, pixels, captions)
    assert torch.allclose(llava_logits(model, language, pixels, captions), mine, atol=MOST_APART, rtol=0)

    processor = AutoProcessor.from_pretrained(tmp_path / "llava", backend="pil")
    asked = processor.apply_chat_template([{"role": "user", "content": [{"type": "image"}]}])
    asked = [asked] * 3
    inputs = processor(images=pictures(), text=asked, add_special_tokens=False, return_tensors="pt")
    around = language.template
    prompt = [*around.before, *[model.config.image_token_id] * CELLS, *around.between]
    assert inputs["input_ids"].tolist() == [prompt] * 3
    assert torch.allclose(inputs["pixel_values"], pixels, atol=1e-6)
    with torch.inference_mode():
        written = model.generate(**inputs)[:, len(prompt) :].tolist()
        features = spatial_features(tower.visual, pixels, layer).flatten(2).transpose(1, 2)
        expected = language.generate(trained.show(features), 7, trained)
    ends = [row.index(language.eos) if language.eos in row else len(row) for row in written]
    assert [row[:end] for row, end in zip(written, ends, strict=True)] == expected
    assert "vision_folder" not in (tmp_path / "llava" / "config.json").read_text()
    assert str(tmp_path.parents[1]) not in (tmp_path / "llava" / "config.json").read_text()


def test_towers_of_other_activations_and_sizes_keep_their_numbers(tmp_path: Path) -> None:
    import open_clip
    from transformers import CLIPVisionConfig, CLIPVisionModel

    torch.manual_seed(1)
    shape = {"image_size": 28, "patch_size": 7, "width": 32, "layers": 3, "head_width": 16}
    visual = open_clip.model.CLIP(8, shape, TEXT, quick_gelu=True).visual.eval()
    config = clip_config(visual)
    assert config["hidden_act"] == "quick_gelu" and config["num_attention_heads"] == 2
    theirs = CLIPVisionModel(CLIPVisionConfig(**config)).eval()
    theirs.load_state_dict(clip_weights(visual.state_dict()))
    pixels = torch.randn(2, 3, 28, 28)
    with torch.inference_mode():
        last = visual.ln_post(theirs(pixels).last_hidden_state[:, 1:])
        ours = spatial_features(visual, pixels).flatten(2).transpose(1, 2)
    assert torch.allclose(last, ours, atol=1e-5)


def test_what_no_llava_has_is_refused(tower: VisionTower, language: LanguageModel, tmp_path: Path) -> None:
    import open_clip

    def refused(said: str, of: Bridge, behind: VisionTower = tower, before: LanguageModel = language) -> None:
        with pytest.raises(RecipeError, match=said):
            write_llava(tmp_path / "none", of, behind, before, 7)
        assert not list(tmp_path.iterdir())

    refused("64 patches.*visual_tokens: 64", bridge(), VisionTower(tower.visual, tower.preprocess, 16, "cpu"))
    refused("go in at layer 1", bridge(layer=1))
    refused("was trained with moca", bridge(parts={"moca": torch.nn.Linear(1, 1)}))
    refused("wide inside", bridge(Mlp(hidden=40)))
    refused("only connectors `mlp` and `linear`", Bridge(torch.nn.Sequential(torch.nn.Linear(24, 32))))
    shape = {"layers": [1, 1, 1, 1], "width": 16, "image_size": 32, "head_width": 16}
    resnet = open_clip.model.CLIP(8, shape, TEXT)
    refused("no plain open_clip vision transformer", bridge(), VisionTower(resnet.visual, tower.preprocess, 64, "cpu"))
    (tmp_path / "none").mkdir()
    with pytest.raises(RecipeError, match="is there already"):
        write_llava(tmp_path / "none", bridge(), tower, language, 7)

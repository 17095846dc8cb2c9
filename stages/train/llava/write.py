"""Puts the parts into one folder, loads it again as anybody would, and holds it against what was trained."""

import copy
import os
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from schemas.errors import ContractError, RecipeError
from stages.train.llava.processing import with_image_token, write_processor
from stages.train.llava.projector import projector_weights
from stages.train.llava.tower import clip_config, clip_weights

if TYPE_CHECKING:
    import torch

    from stages.train.bridge import Bridge
    from stages.train.language_model import LanguageModel
    from stages.train.vision_tower import VisionTower

MOST_APART = 1e-4
"""Largest difference of logits, as a share of the largest logit, between the folder's model and ours."""
CHECKED = 4
"""Generated images that the two models are compared on."""


def write_llava(
    folder: Path, bridge: "Bridge", tower: "VisionTower", language: "LanguageModel", most: int
) -> dict[str, float]:
    """Write a folder that `AutoModelForImageTextToText` and `AutoProcessor` load.

    Args:
        folder: appears complete, or not at all; there must be nothing of that name yet.
        bridge: the trained connector.
        tower: the image tower it was trained behind.
        language: the language model it was trained before.
        most: tokens that a caption has at most.

    Returns:
        `largest_difference` of the logits of generated images, and `largest_logit`.

    Raises:
        RecipeError: parts that no LLaVA has, each with its name.
        ContractError: the folder's model computes something else than ours.
    """
    _refuse(folder, bridge, tower, language)
    staging = folder.with_name(f".writing-{folder.name}-{os.getpid()}")
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    try:
        _save(staging, bridge, tower, language, most)
        write_processor(staging, language, tower.visual)
        apart = _compared(staging, bridge, tower, language)
        os.replace(staging, folder)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return apart


def _refuse(folder: Path, bridge: "Bridge", tower: "VisionTower", language: "LanguageModel") -> None:
    if folder.exists():
        raise RecipeError(f"{folder} is there already; name a new folder or move it away")
    if tower.kind != "patches":
        raise RecipeError("the connector reads class tokens, and a LLaVA patches; choose `mlp` or `linear`")
    if bridge.layer or bridge.placement != "insert" or len(bridge.parts):
        parts = ", ".join(bridge.parts) or f"tokens that go in at layer {bridge.layer} ({bridge.placement})"
        raise RecipeError(f"the connector was trained with {parts}, which no LLaVA has; train it without")
    visual: Any = tower.visual
    rows, columns = getattr(visual, "grid_size", (0, 0))
    if rows * columns > tower.visual_tokens:
        raise RecipeError(
            f"the connector reads {tower.visual_tokens} averages of {rows * columns} patches, and a LLaVA averages "
            f"none; train with `visual_tokens: {rows * columns}`"
        )
    if getattr(language.model.get_output_embeddings(), "bias", None) is not None:
        raise RecipeError("the language model's output layer has a bias, and a LLaVA's has none")


def _save(folder: Path, bridge: "Bridge", tower: "VisionTower", language: "LanguageModel", most: int) -> None:
    import torch

    visual: Any = tower.visual
    vision = clip_config(visual)
    projector, activation = projector_weights(bridge.connector)
    made, model_class, norm = _kind(tower)
    _, image_token = with_image_token(language.tokenizer)
    weights, text = _language(language, image_token)
    weights |= {f"model.vision_tower.{name}": value for name, value in clip_weights(visual.state_dict()).items()}
    weights |= {f"model.multi_modal_projector.{name}": value for name, value in {**projector, **norm}.items()}
    config = made(
        vision_config={"model_type": "clip_vision_model", **vision},
        text_config=text,
        image_token_index=image_token,
        image_seq_length=(vision["image_size"] // vision["patch_size"]) ** 2,
        projector_hidden_act=activation,
        vision_feature_layer=tower.layer,
        tie_word_embeddings=text.tie_word_embeddings,
    )
    with torch.device("meta"):
        model = model_class(config)
    plain = {name: value.detach().float().cpu().contiguous() for name, value in weights.items()}
    model.load_state_dict(plain, assign=True)
    model.tie_weights()
    model.generation_config = _generation(language, image_token, most)
    model.save_pretrained(folder)
    for file in folder.iterdir():
        file.chmod(0o644)  # safetensors are written for their owner alone


def _kind(tower: "VisionTower") -> "tuple[Callable[..., Any], Any, dict[str, torch.Tensor]]":
    """Configuration, class, and the norm that its projector begins with."""
    from transformers import (
        LlavaConfig,
        LlavaForConditionalGeneration,
        VipLlavaConfig,
        VipLlavaForConditionalGeneration,
    )

    norm: Any = tower.visual.ln_post
    if tower.layer != -1:
        return partial(LlavaConfig, vision_feature_select_strategy="default"), LlavaForConditionalGeneration, {}
    weights = {f"projector_layernorm.{name}": value.clone() for name, value in norm.state_dict().items()}
    return partial(VipLlavaConfig, projector_layernorm_eps=norm.eps), VipLlavaForConditionalGeneration, weights


def _language(language: "LanguageModel", image_token: int) -> "tuple[dict[str, torch.Tensor], Any]":
    """The language model's weights by LLaVA's names, and its configuration, with room for the image token."""
    import torch

    text = copy.deepcopy(language.model.config)
    text._name_or_path = ""  # where it lay is nobody's business
    base = language.model.base_model
    weights = {f"model.language_model.{name}": value for name, value in base.state_dict().items()}
    weights["lm_head.weight"] = language.model.get_output_embeddings().weight
    rows = language.model.get_input_embeddings().weight.shape[0]
    if image_token >= rows:
        text.vocab_size, embedding = image_token + 1, base.get_input_embeddings().weight
        for name, value in weights.items():
            if name == "lm_head.weight" or value.data_ptr() == embedding.data_ptr():
                weights[name] = torch.nn.functional.pad(value, (0, 0, 0, text.vocab_size - rows))
    return weights, text


def _generation(language: "LanguageModel", image_token: int, most: int) -> Any:
    """Greedy, and never an image token, which has weights of its own only to have a place."""
    from transformers import GenerationConfig

    pad = language.tokenizer.pad_token_id
    return GenerationConfig(  # type: ignore[no-untyped-call]
        do_sample=False,
        max_new_tokens=most,
        bos_token_id=language.bos,
        eos_token_id=language.eos,
        pad_token_id=language.eos if pad is None else pad,
        suppress_tokens=[image_token],
    )


def _compared(folder: Path, bridge: "Bridge", tower: "VisionTower", language: "LanguageModel") -> dict[str, float]:
    import torch
    from transformers import AutoModelForImageTextToText

    theirs: Any = AutoModelForImageTextToText.from_pretrained(folder, local_files_only=True, dtype=torch.float32)
    visual: Any = tower.visual
    side = int(visual.image_size[0])
    pixels = torch.randn(CHECKED, 3, side, side, generator=torch.Generator().manual_seed(0))
    captions = torch.arange(CHECKED * 8).view(CHECKED, 8) % language.model.get_input_embeddings().weight.shape[0]
    mine = own_logits(bridge, tower, language, pixels, captions)
    apart = float((llava_logits(theirs.eval(), language, pixels, captions) - mine).abs().max())
    largest = float(mine.abs().max())
    if not apart <= MOST_APART * max(1.0, largest):
        raise ContractError(f"the LLaVA folder's logits are up to {apart:.3g} from ours, which reach {largest:.3g}")
    return {"largest_difference": apart, "largest_logit": largest}


def own_logits(
    bridge: "Bridge", tower: "VisionTower", language: "LanguageModel", pixels: "torch.Tensor", captions: "torch.Tensor"
) -> "torch.Tensor":
    """(n, t, vocabulary) of captions (n, t) behind images (n, 3, side, side), by the models it was trained between."""
    import torch

    from stages.train.layout import lay_out
    from stages.train.vision_tower import spatial_features

    with torch.inference_mode():
        features = spatial_features(tower.visual, pixels.to(tower.device), tower.layer).flatten(2).transpose(1, 2)
        shown = language.show(bridge, features.to(language.device))
        said = [language.said(ids, False, image) for image, ids in enumerate(captions.tolist())]
        logits = language.label_logits(lay_out(said, shown.places), shown, bridge)
    return logits.view(*captions.shape, -1).cpu()


def llava_logits(
    model: Any, language: "LanguageModel", pixels: "torch.Tensor", captions: "torch.Tensor"
) -> "torch.Tensor":
    """The same by a loaded LLaVA, without the image token's."""
    import torch

    n, count = captions.shape
    cells = int(model.config.image_seq_length)
    around, shown = language.template, [model.config.image_token_id] * cells
    before = torch.tensor([*around.before, *shown, *around.between]).expand(n, -1)
    with torch.inference_mode():
        ids = torch.cat([before, captions[:, :-1]], dim=1)
        logits: torch.Tensor = model(input_ids=ids, pixel_values=pixels, use_cache=False).logits[:, -count:]
    return logits[..., : language.model.get_input_embeddings().weight.shape[0]]

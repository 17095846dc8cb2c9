"""What stands beside the weights: tokenizer with an image token, image preprocessing, prompt."""

import copy
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from schemas.errors import RecipeError

if TYPE_CHECKING:
    from stages.train.language_model import LanguageModel

IMAGE_TOKEN = "<image>"
RESAMPLING = {"bicubic": 3, "bilinear": 2}
PROMPT = (
    "{{% for message in messages %}}{{% for part in message['content'] %}}"
    "{{% if part['type'] == 'image' %}}{}{{% endif %}}{{% endfor %}}{{% endfor %}}"
)
"""Of a chat that shows one image: what stands before a caption in training."""


def with_image_token(tokenizer: Any) -> tuple[Any, int]:
    """A copy that knows the image token, and its id."""
    from transformers import AddedToken

    own = copy.deepcopy(tokenizer)
    own.add_tokens([AddedToken(IMAGE_TOKEN, special=True, normalized=False)], special_tokens=True)
    return own, int(own.convert_tokens_to_ids(IMAGE_TOKEN))


def image_settings(preprocessing: dict[str, Any]) -> dict[str, Any]:
    """What `CLIPImageProcessor` is told so that it does as open_clip's preprocessing.

    Raises:
        RecipeError: a way of resizing that it does not have.
    """
    height, width = preprocessing["size"]
    mode, resampling = preprocessing["resize_mode"], RESAMPLING.get(preprocessing["interpolation"])
    if mode not in ("squash", "shortest") or resampling is None:
        found = f"{mode!r} with {preprocessing['interpolation']!r}"
        raise RecipeError(
            f"images are resized by {found}; a LLaVA folder needs squash or shortest, bicubic or bilinear"
        )
    whole = {"height": height, "width": width}
    size = whole if mode == "squash" else {"shortest_edge": min(height, width)}
    return {
        "do_resize": True,
        "size": size,
        "resample": resampling,
        "do_center_crop": mode == "shortest",
        "crop_size": whole,
        "image_mean": list(preprocessing["mean"]),
        "image_std": list(preprocessing["std"]),
        "do_convert_rgb": True,
    }


def write_processor(folder: Path, language: "LanguageModel", visual: Any) -> None:
    """Write tokenizer, image preprocessing and prompt, as `AutoProcessor` loads them."""
    from transformers import LlavaProcessor
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    tokenizer, image_token = with_image_token(language.tokenizer)
    processor = LlavaProcessor(  # type: ignore[no-untyped-call]
        image_processor=CLIPImageProcessorPil(**image_settings(visual.preprocess_cfg)),
        tokenizer=tokenizer,
        patch_size=visual.conv1.kernel_size[0],
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        image_token=IMAGE_TOKEN,
        chat_template=PROMPT.format(f"{{{{ {json.dumps(_prompt(language, tokenizer, image_token))} }}}}"),
    )
    processor.save_pretrained(folder)


def _prompt(language: "LanguageModel", tokenizer: Any, image_token: int) -> str:
    """The template's words around one image token.

    Raises:
        RecipeError: they do not become the template's tokens again.
    """
    template = language.template
    ids = [*template.before, image_token, *template.between]
    text = str(tokenizer.decode(ids, clean_up_tokenization_spaces=False))
    if (again := tokenizer(text, add_special_tokens=False)["input_ids"]) != ids:
        raise RecipeError(f"the prompt {text!r} of tokens {ids} is read as {again}; train with `templates: [plain]`")
    return text

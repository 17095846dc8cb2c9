"""An open_clip vision transformer as transformers' `CLIPVisionModel`: the same numbers under other names."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from schemas.errors import RecipeError

if TYPE_CHECKING:
    import torch

WHOLE = {
    "class_embedding": "embeddings.class_embedding",
    "conv1.weight": "embeddings.patch_embedding.weight",
    "positional_embedding": "embeddings.position_embedding.weight",
    "ln_pre.weight": "pre_layrnorm.weight",
    "ln_pre.bias": "pre_layrnorm.bias",
    "ln_post.weight": "post_layernorm.weight",
    "ln_post.bias": "post_layernorm.bias",
}
BLOCK = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
    "attn.out_proj": "self_attn.out_proj",
}
JOINT = "attn.in_proj_"
"""Query, key and value in one matrix."""
UNUSED = "proj"
"""The map into the space that is shared with captions."""
ACTIVATIONS = {"GELU": "gelu", "QuickGELU": "quick_gelu"}


def clip_config(visual: Any) -> dict[str, Any]:
    """Settings of the `CLIPVisionConfig` that computes as the tower does.

    Raises:
        RecipeError: a tower of another build.
    """
    from torch import nn

    if not _is_plain(visual):
        raise RecipeError(
            f"image tower {type(visual).__name__} is no plain open_clip vision transformer (class token, norms before "
            "and after, no attentional pooling); LLaVA folders can be written for those only"
        )
    first, (height, width) = visual.transformer.resblocks[0], visual.image_size
    activation = ACTIVATIONS.get(type(first.mlp.gelu).__name__)
    if activation is None or height != width or getattr(first.mlp.gelu, "approximate", "none") != "none":
        found = f"images of {height} x {width} and {first.mlp.gelu}"
        raise RecipeError(f"the image tower has {found}; a LLaVA folder needs square images and GELU or QuickGELU")
    assert isinstance(visual.ln_pre, nn.LayerNorm)
    return {
        "hidden_size": visual.conv1.out_channels,
        "intermediate_size": first.mlp.c_fc.out_features,
        "num_hidden_layers": len(visual.transformer.resblocks),
        "num_attention_heads": first.attn.num_heads,
        "image_size": height,
        "patch_size": visual.conv1.kernel_size[0],
        "hidden_act": activation,
        "layer_norm_eps": visual.ln_pre.eps,
    }


def _is_plain(visual: Any) -> bool:
    """Whether every weight has its place in a `CLIPVisionModel`."""
    names = set(visual.state_dict())
    expected = set(WHOLE) | {name for name in names if _within(name)}
    return (
        type(visual).__name__ == "VisionTransformer"
        and set(WHOLE) <= names
        and names - {UNUSED} == expected
        and getattr(visual, "attn_pool", None) is None
        and visual.ln_post.weight.shape == visual.class_embedding.shape
        and len(set(visual.conv1.kernel_size)) == 1
        and len({norm.eps for norm in (visual.ln_pre, visual.ln_post)}) == 1
    )


def _within(name: str) -> bool:
    """Whether it is a weight of a block."""
    parts = name.split(".", 3)
    if len(parts) < 4 or parts[:2] != ["transformer", "resblocks"]:
        return False
    return parts[3].startswith(JOINT) or parts[3].rpartition(".")[0] in BLOCK


def clip_weights(weights: "Mapping[str, torch.Tensor]") -> "dict[str, torch.Tensor]":
    """The tower's weights under transformers' names."""
    found = {theirs: weights[ours] for ours, theirs in WHOLE.items()}
    for name, value in weights.items():
        if not _within(name):
            continue
        _, _, number, inner = name.split(".", 3)
        layer = f"encoder.layers.{number}"
        if inner.startswith(JOINT):
            kind = inner.removeprefix(JOINT)
            parts = zip(("q_proj", "k_proj", "v_proj"), value.chunk(3), strict=True)
            found |= {f"{layer}.self_attn.{part}.{kind}": third for part, third in parts}
        else:
            module, _, kind = inner.rpartition(".")
            found[f"{layer}.{BLOCK[module]}.{kind}"] = value
    return found

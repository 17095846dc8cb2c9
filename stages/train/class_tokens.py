"""One vector of each of an image tower's last layers: what its pooled output is made of, layer by layer."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

LAYERS = 6
"""Most layers, counted from the last; eP-ALM's (arXiv:2303.11403)."""


def class_tokens(visual: Any, pixels: "torch.Tensor") -> "torch.Tensor":
    """(n, m, width) of the last m <= `LAYERS` layers, first to last, before the final norm.

    Args:
        visual: an open_clip image tower. A vision transformer gives its class token, or the mean of its patches where
            it has none; a tower whose layers differ in width gives the mean of its last map alone, m = 1.
        pixels: (n, 3, height, width), preprocessed.
    """
    from stages.train.vision_tower import spatial_features

    layers = _trunk_layers(visual, pixels) if hasattr(visual, "trunk") else _open_clip_layers(visual, pixels)
    if layers is None:
        return spatial_features(visual, pixels).mean(dim=(2, 3))[:, None]
    import torch

    return torch.stack(layers, dim=1)


def _open_clip_layers(visual: Any, pixels: "torch.Tensor") -> "list[torch.Tensor] | None":
    if not hasattr(visual, "class_embedding"):
        return None
    count = min(LAYERS, len(visual.transformer.resblocks))
    options = {"indices": count, "intermediates_only": True, "output_extra_tokens": True, "output_fmt": "NLC"}
    found = visual.forward_intermediates(pixels, **options)
    return [prefix[:, 0] for prefix in found["image_intermediates_prefix"]]


def _trunk_layers(visual: Any, pixels: "torch.Tensor") -> "list[torch.Tensor] | None":
    trunk = visual.trunk
    if not hasattr(trunk, "blocks") or not hasattr(trunk, "num_prefix_tokens"):
        return None
    options = {"indices": min(LAYERS, len(trunk.blocks)), "intermediates_only": True, "output_fmt": "NLC"}
    if getattr(trunk, "cls_token", None) is None:
        return [patches.mean(dim=1) for patches in trunk.forward_intermediates(pixels, **options)]
    found = trunk.forward_intermediates(pixels, **options, return_prefix_tokens=True)
    return [prefix[:, 0] for _, prefix in found]

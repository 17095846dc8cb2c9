"""Visual features of any open_clip image tower: those of a layer's places, before they are pooled to one vector."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from schemas.errors import CuveeError
from stages.pixels import middle, most_aspect
from stages.train.class_tokens import class_tokens
from stages.train.connectors.contract import FeatureKind, Grid

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import torch
    from PIL import Image

BATCH = 64
"""Images per forward pass. Always full, padded with zeros: a row's bits must not depend on how many came along."""


@dataclass(frozen=True)
class VisionTower:
    """A frozen image tower with its preprocessing."""

    visual: "torch.nn.Module"
    preprocess: "Callable[[Image.Image], torch.Tensor]"
    visual_tokens: int
    device: str
    kind: FeatureKind = "patches"
    layer: int = -1
    """Of the patches, from the last one back."""

    def tokens(self, images: "list[Image.Image]") -> "npt.NDArray[np.float16]":
        """(n, tokens, width) fp16 visual tokens of at most `BATCH` RGB images, row by row of the grid."""
        return self.features(images)[0]

    def features(self, images: "list[Image.Image]") -> "tuple[npt.NDArray[np.float16], Grid]":
        """The same with the grid they stand in."""
        import torch

        return self.encode(torch.stack([self.preprocess(image) for image in images]))

    def encode(self, pixels: "torch.Tensor") -> "tuple[npt.NDArray[np.float16], Grid]":
        """The same of at most `BATCH` preprocessed images (n, 3, height, width); same bits in any surroundings."""
        import torch

        from stages.train.language_model import one_thread

        padding = torch.zeros(BATCH - len(pixels), *pixels.shape[1:])
        plain = torch.autocast(torch.device(self.device).type, enabled=False)  # inside a training step in bf16, too
        with one_thread(), torch.inference_mode(), plain:
            tokens, grid = self._features(torch.cat([pixels, padding]).to(self.device))
        # Contiguous as on disk: products of the same numbers, laid out otherwise, may differ in their last bits.
        found: npt.NDArray[np.float16] = tokens[: len(pixels)].half().cpu().contiguous().numpy()
        return found, grid

    def _features(self, pixels: "torch.Tensor") -> "tuple[torch.Tensor, Grid]":
        import torch

        if self.kind == "class_tokens":
            vectors = class_tokens(self.visual, pixels)
            return vectors, Grid(1, vectors.shape[1])
        patches = spatial_features(self.visual, pixels, self.layer)
        cells = pooled_grid(patches.shape[2], patches.shape[3], self.visual_tokens)
        pooled = torch.nn.functional.adaptive_avg_pool2d(patches, cells)
        return pooled.flatten(2).transpose(1, 2), Grid(*cells)


def load_tower(
    model: str,
    pretrained: str | None,
    visual_tokens: int,
    device: str = "cpu",
    kind: FeatureKind = "patches",
    layer: int = -1,
) -> VisionTower:
    """The image tower of an open_clip model, frozen, in fp32 and eval mode.

    Args:
        model: open_clip name, `local-dir:PATH`, or the path of such a folder.
        pretrained: open_clip tag or weights file; None for a folder, which has its own.
        visual_tokens: most tokens per image.
        device: where it runs.
        kind: what it gives of an image.
        layer: which layer's patches, from the last one back.

    Raises:
        CuveeError: open_clip cannot load it.
    """
    import os

    import open_clip

    name = f"local-dir:{model}" if os.path.isdir(model) else model
    try:
        clip, _, preprocess = open_clip.create_model_and_transforms(name, pretrained=pretrained, device=device)
    except (RuntimeError, ValueError, OSError) as error:
        raise CuveeError(f"image tower {model!r} ({pretrained or 'own weights'}) does not load: {error}") from error
    visual = clip.visual.eval().requires_grad_(False)

    def pixels(image: "Image.Image") -> "torch.Tensor":
        shown: torch.Tensor = preprocess(middle(image, most_aspect(preprocess)))
        return shown

    return VisionTower(visual, pixels, visual_tokens, device, kind, layer)


def spatial_features(visual: Any, pixels: "torch.Tensor", layer: int = -1) -> "torch.Tensor":
    """(n, width, rows, columns) features of one layer, without class or other prefix tokens.

    Args:
        visual: an open_clip image tower. A timm trunk gives what its pooled path averages; a vision transformer its
            patch tokens after the final norm (an attentional pooler's norm has another width and is left out).
        pixels: (n, 3, height, width), preprocessed.
        layer: -1, the last; -2, as LLaVA takes it, the one before, whose patches are given without the final norm.

    Raises:
        CuveeError: a tower that shows no spatial features, or none of this layer.
    """
    if layer != -1:
        return _earlier_features(visual, pixels, layer)
    if hasattr(visual, "trunk"):
        return _trunk_features(visual.trunk, pixels)
    if not hasattr(visual, "forward_intermediates"):
        raise CuveeError(
            f"image tower {type(visual).__name__} shows no spatial features; choose a ViT, ResNet or timm one"
        )
    options: dict[str, Any] = {"indices": 1, "intermediates_only": True}
    if hasattr(visual, "ln_post"):
        options["normalize_intermediates"] = visual.ln_post.weight.shape == visual.class_embedding.shape
    found: torch.Tensor = visual.forward_intermediates(pixels, **options)["image_intermediates"][-1]
    return found


def _earlier_features(visual: Any, pixels: "torch.Tensor", layer: int) -> "torch.Tensor":
    trunk = getattr(visual, "trunk", None)
    transformer = visual if trunk is None else trunk
    blocks = getattr(getattr(visual, "transformer", transformer), "resblocks", getattr(transformer, "blocks", []))
    plain = hasattr(visual, "class_embedding") if trunk is None else hasattr(trunk, "num_prefix_tokens")
    if not plain or not -len(blocks) <= layer < 0:
        raise CuveeError(
            f"image tower {type(transformer).__name__} has no layer {layer} of patches, found {len(blocks) * plain} "
            "layers of one width; leave `vision_layer` out, or name one of a vision transformer"
        )
    found = transformer.forward_intermediates(pixels, indices=[len(blocks) + layer], intermediates_only=True)
    patches: torch.Tensor = (found["image_intermediates"] if isinstance(found, dict) else found)[0]
    return patches


def _trunk_features(trunk: Any, pixels: "torch.Tensor") -> "torch.Tensor":
    features: torch.Tensor = trunk.forward_features(pixels)
    if features.ndim == 4:
        channels_last = features.shape[1] != trunk.num_features and features.shape[-1] == trunk.num_features
        return features.permute(0, 3, 1, 2) if channels_last else features
    patches = features[:, trunk.num_prefix_tokens :]
    rows, columns = getattr(trunk.patch_embed, "grid_size", None) or (math.isqrt(patches.shape[1]),) * 2
    return patches.transpose(1, 2).reshape(len(patches), -1, rows, columns)


def pooled_grid(rows: int, columns: int, most: int) -> tuple[int, int]:
    """The grid that `rows` x `columns` is averaged to: at most `most` cells, in about the same proportions."""
    if rows * columns <= most:
        return rows, columns
    fewer = min(rows, most, max(1, math.isqrt(most * rows // columns)))
    return fewer, min(columns, max(1, most // fewer))

"""open_clip's preprocessing in two halves: threads leave bytes at the model's size, the GPU makes numbers of them.

Pillow's resize and the floats after it are most of what an image costs a host, and Python holds its lock for part of
it. torch resizes bytes with the same antialiased filters, and a copy of bytes is half of one in bf16. Its weights are
rounded otherwise: against Pillow 3 in 1,000 values differ, by 1 level of 255, or by 2 where a picture is enlarged.
"""

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import torch
    from PIL import Image

MODES = ("bicubic", "bilinear")
"""Filters that torch has for bytes."""


class Halves:
    """Steps of open_clip that `halves` knows, for one device and dtype."""

    def __init__(self, steps: list[Any], device: str, dtype: "torch.dtype") -> None:
        """`steps`: a resize, perhaps a crop, RGB, to tensor, normalize."""
        import torch

        self.resize, self.crop, self.dtype = steps[0], steps[1:-3], dtype
        # Here, once: a copy from the host while passes are queued would wait for them.
        self.mean, self.std = (
            torch.tensor(told, device=device).view(3, 1, 1) for told in (steps[-1].mean, steps[-1].std)
        )

    def pixels(self, picture: "Image.Image") -> "torch.Tensor":
        """uint8 (3, height, width) of an RGB picture, at the model's size."""
        import torch

        whole = torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None]
        height, width = self._size(picture)
        mode = self.resize.interpolation.value
        less_height, less_width = picture.height - height, picture.width - width
        if less_height > max(0, 2 * less_width):  # then Pillow 13 begins with the columns, torch always with the rows
            whole = torch.nn.functional.interpolate(whole, (height, picture.width), mode=mode, antialias=True)
        pixels = torch.nn.functional.interpolate(whole, (height, width), mode=mode, antialias=True)[0]
        for crop in self.crop:
            pixels = crop(pixels)
        return pixels.contiguous()

    def numbers(self, batch: "torch.Tensor") -> "torch.Tensor":
        """(n, 3, height, width) of bytes as the model wants them: in [0, 1], less the mean, by the deviation."""
        return batch.float().div_(255).sub_(self.mean).div_(self.std).to(self.dtype)

    def _size(self, picture: "Image.Image") -> tuple[int, int]:
        """(height, width) that the model's own resize would give a picture."""
        wanted = self.resize.size
        if hasattr(self.resize, "longest"):
            height, width = self.resize.get_params(picture, wanted, self.resize.longest)
        elif isinstance(wanted, int):
            height, width = (int(wanted * side / min(picture.size)) for side in reversed(picture.size))
        else:
            height, width = wanted
        return height, width


def halves(preprocess: Any, device: str, dtype: "torch.dtype") -> Halves | None:
    """The halves of a model's preprocessing; None where it has other steps than open_clip's own for evaluation."""
    from open_clip.transform import CenterCropOrPad, MaybeConvertMode, MaybeToTensor, ResizeKeepRatio
    from torchvision.transforms import CenterCrop, Compose, Normalize, Resize

    steps = list(preprocess.transforms) if type(preprocess) is Compose else []
    end = (MaybeConvertMode, MaybeToTensor, Normalize)
    shrunk = {(Resize,), (Resize, CenterCrop), (ResizeKeepRatio, CenterCrop), (ResizeKeepRatio, CenterCropOrPad)}
    if tuple(map(type, steps)) not in {(*begin, *end) for begin in shrunk}:
        return None
    resize = steps[0]
    if type(resize) is Resize:
        # A number is the shorter side: only a crop makes one shape of that.
        fixed = isinstance(resize.size, int) if len(steps) == 5 else np.size(resize.size) == 2
        known = fixed and resize.max_size is None
    else:
        known = not resize.random_scale_prob and not resize.random_aspect_prob
    known = known and resize.interpolation.value in MODES and steps[-3].mode == "RGB" and len(steps[-1].mean) == 3
    return Halves(steps, device, dtype) if known else None

"""Whether two ways through a model lead to the same: to rounding, which half precision does much of."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

EXACT, COARSE = 1e-3, 0.1
"""What rounding may come to in single and in half precision, relative to the largest value; a wrong order of operations
or a mask that lets one text see another is off by more."""


def apart(found: "torch.Tensor", wanted: "torch.Tensor") -> float:
    """The largest difference of two tensors of one shape, relative to the largest value of `wanted`."""
    return float((found - wanted).abs().max() / wanted.abs().max().clamp(min=1e-6))


def agree(found: "torch.Tensor", wanted: "torch.Tensor") -> bool:
    """Whether they are the same but for rounding in their precision; what is not finite is not."""
    import torch

    most = EXACT if wanted.dtype in (torch.float32, torch.float64) else COARSE
    return found.shape == wanted.shape and apart(found, wanted) < most

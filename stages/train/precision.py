"""Numbers of a forward pass: fp32, or bf16 between the connector's fp32 weights and the fp32 losses.

On a GPU the attention of a bf16 run is a fused kernel, or the run fails: a fallback would be slower by far, unseen.
"""

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import torch

Precision = Literal["fp32", "bf16"]


def frozen_dtype(precision: Precision) -> "torch.dtype":
    """What the frozen language model's weights are held in."""
    import torch

    return torch.bfloat16 if precision == "bf16" else torch.float32


@contextlib.contextmanager
def numerics(precision: Precision, device: str) -> Iterator[None]:
    """Around a forward pass, and around a backward pass that computes layers again."""
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel

    if precision == "fp32":
        yield
        return
    kind = torch.device(device).type
    with contextlib.ExitStack() as stack:
        stack.enter_context(torch.autocast(kind, torch.bfloat16))
        if kind == "cuda":
            fused = [SDPBackend.FLASH_ATTENTION, SDPBackend.CUDNN_ATTENTION, SDPBackend.EFFICIENT_ATTENTION]
            stack.enter_context(sdpa_kernel(fused))
        yield

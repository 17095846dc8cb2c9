"""The two-layer MLP connector of LLaVA-1.5 (arXiv:2310.03744): Linear, GELU, Linear, the same for each visual token."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def mlp(vision_width: int, hidden: int, language_width: int, seed: int) -> "torch.nn.Sequential":
    """Visual tokens (..., vision_width) to input embeddings (..., language_width).

    The initial weights are torch's default for linear layers and depend on the widths and `seed` alone.
    """
    import torch
    from torch import nn

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(vision_width, hidden), nn.GELU(), nn.Linear(hidden, language_width))

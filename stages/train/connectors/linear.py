"""The linear connector of LLaVA (arXiv:2304.08485): W x + b, the same for each visual token."""

from typing import TYPE_CHECKING, Literal

from stages.train.connectors.contract import Connector, Grid
from stages.train.connectors.initial_weights import seeded

if TYPE_CHECKING:
    import torch


class Linear(Connector):
    """One linear layer; 4.2 million parameters between widths of 1024 and 4096."""

    kind: Literal["linear"] = "linear"

    def tokens(self, grid: Grid) -> int:
        """As many as there are features."""
        return grid.cells

    def build(self, vision_width: int, language_width: int, seed: int, grid: Grid) -> "torch.nn.Module":
        """With torch's default weights for linear layers."""
        from torch import nn

        with seeded(seed):
            return nn.Linear(vision_width, language_width)

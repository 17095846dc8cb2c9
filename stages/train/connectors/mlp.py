"""The two-layer MLP connector of LLaVA-1.5 (arXiv:2310.03744): Linear, GELU, Linear, the same for each visual token."""

from typing import TYPE_CHECKING, Literal

from stages.train.connectors.contract import Grid, TwoLayers
from stages.train.connectors.initial_weights import seeded

if TYPE_CHECKING:
    import torch


class Mlp(TwoLayers):
    """The default; 20.98 million parameters between widths of 1024 and 4096."""

    kind: Literal["mlp"] = "mlp"

    def tokens(self, grid: Grid) -> int:
        """As many as there are features."""
        return grid.cells

    def build(self, vision_width: int, language_width: int, seed: int, grid: Grid) -> "torch.nn.Module":
        """With torch's default weights for linear layers."""
        with seeded(seed):
            return self.layers(vision_width, language_width)

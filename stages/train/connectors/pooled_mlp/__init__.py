"""Fewer tokens, then LLaVA-1.5's MLP: windows of neighbouring features become one, 576 -> 144 at a window of 2.

`mean` averages a window (MobileVLM's and DeCo's plain pooling); `shuffle` lays its features side by side (the pixel
shuffle of InternVL, arXiv:2404.16821), which loses nothing and makes the first layer `window`^2 times as wide. Where
the grid does not divide, the last windows of a row or column are cut short: `mean` averages what is there, `shuffle`
repeats the border.
"""

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from stages.train.connectors.contract import Grid, TwoLayers
from stages.train.connectors.initial_weights import seeded

if TYPE_CHECKING:
    import torch


class PooledMlp(TwoLayers):
    """The simplest connector that gives fewer tokens than there are features."""

    kind: Literal["pooled_mlp"] = "pooled_mlp"
    window: int = Field(default=2, ge=1)
    """Rows, and columns, of features that become one token."""
    pool: Literal["mean", "shuffle"] = "mean"
    grid_bound: ClassVar[bool] = True

    def tokens(self, grid: Grid) -> int:
        """One a window, the cut ones included."""
        return -(-grid.rows // self.window) * -(-grid.columns // self.window)

    def build(self, vision_width: int, language_width: int, seed: int, grid: Grid) -> "torch.nn.Module":
        """The window's pool, then the two layers."""
        from torch import nn

        from stages.train.connectors.pooled_mlp.network import Windows

        width = vision_width * (self.window**2 if self.pool == "shuffle" else 1)
        with seeded(seed):
            layers = self.layers(width, language_width)
        return nn.Sequential(Windows(grid, self.window, self.pool), *layers)

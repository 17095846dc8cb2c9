"""Windows of neighbouring features as one."""

import torch
from torch import nn

from schemas.errors import ContractError
from stages.train.connectors.contract import Grid


class Windows(nn.Module):
    """(n, rows x columns, width) to (n, windows, width), or (n, windows, window^2 x width) where they are shuffled."""

    def __init__(self, grid: Grid, window: int, pool: str) -> None:
        """Without parameters."""
        super().__init__()
        self.grid, self.window, self.pool = grid, window, pool

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Windows row by row; inside a shuffled one, features row by row."""
        if features.shape[1] != self.grid.cells:
            raise ContractError(f"expected {self.grid.cells} features, {self.grid}, found {features.shape[1]}")
        image = features.transpose(1, 2).reshape(len(features), features.shape[2], *self.grid)
        pooled = self._mean(image) if self.pool == "mean" else self._shuffled(image)
        return pooled.flatten(2).transpose(1, 2)

    def _mean(self, image: torch.Tensor) -> torch.Tensor:
        return nn.functional.avg_pool2d(image, self.window, ceil_mode=True, count_include_pad=False)

    def _shuffled(self, image: torch.Tensor) -> torch.Tensor:
        lacking = (0, -self.grid.columns % self.window, 0, -self.grid.rows % self.window)
        return nn.functional.pixel_unshuffle(_extended(image, lacking), self.window)


def _extended(image: torch.Tensor, lacking: tuple[int, int, int, int]) -> torch.Tensor:
    if not any(lacking) or not len(image):
        return nn.functional.pad(image, lacking)
    return nn.functional.pad(image, lacking, mode="replicate")

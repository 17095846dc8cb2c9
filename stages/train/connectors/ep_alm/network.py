"""Class tokens behind a soft prompt."""

import torch
from torch import nn


class ClassTokens(nn.Module):
    """(n, v, vision width) class tokens to (n, soft + layers, language width)."""

    def __init__(self, vision: int, language: int, layers: int, soft: int) -> None:
        """One linear layer for the class tokens of all layers."""
        super().__init__()
        self.layers = layers
        self.project = nn.Linear(vision, language)
        self.soft = nn.Parameter(0.02 * torch.randn(soft, language)) if soft else None

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """The soft prompt, then the last layers' class tokens, first to last."""
        projected: torch.Tensor = self.project(features[:, -self.layers :])
        if self.soft is None:
            return projected
        return torch.cat([self.soft.expand(len(features), -1, -1), projected], dim=1)

"""Latents that read an image, layer by layer."""

import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention, silu

EPSILON = 1e-6
"""Of every RMSNorm."""
EXPANSION = 4
"""Width of the gated MLP over that of the latents."""


class Reading(nn.Module):
    """One look of the latents at the image and at each other."""

    def __init__(self, width: int, heads: int) -> None:
        """All layers without bias, as in Idefics2."""
        super().__init__()
        self.heads = heads
        self.latents_norm, self.context_norm, self.mlp_norm = (nn.RMSNorm(width, EPSILON) for _ in range(3))
        self.query, self.key, self.value, self.out = (nn.Linear(width, width, bias=False) for _ in range(4))
        self.gate, self.up = (nn.Linear(width, EXPANSION * width, bias=False) for _ in range(2))
        self.down = nn.Linear(EXPANSION * width, width, bias=False)

    def forward(self, latents: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
        """(n, l, width) latents after reading (n, v, width) features."""
        asking = self.latents_norm(latents)
        seen = torch.cat([self.context_norm(context), asking], dim=1)
        query, key, value = self._heads(self.query(asking)), self._heads(self.key(seen)), self._heads(self.value(seen))
        read = scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
        latents = latents + self.out(read)
        normed = self.mlp_norm(latents)
        changed: torch.Tensor = latents + self.down(silu(self.gate(normed)) * self.up(normed))
        return changed

    def _heads(self, states: torch.Tensor) -> torch.Tensor:
        return states.view(*states.shape[:2], self.heads, states.shape[2] // self.heads).transpose(1, 2)


class Resampler(nn.Module):
    """(n, v, vision width) features to (n, latents, language width) tokens."""

    def __init__(self, vision: int, width: int, language: int, latents: int, depth: int, heads: int) -> None:
        """Its layers; see the package."""
        super().__init__()
        self.latents = nn.Parameter(0.02 * torch.randn(latents, width))
        self.into = nn.Linear(vision, width)
        self.layers = nn.ModuleList(Reading(width, heads) for _ in range(depth))
        self.norm = nn.RMSNorm(width, EPSILON)
        self.out = nn.Linear(width, language)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Tokens in the order of the latents."""
        context = self.into(features)
        latents = self.latents.expand(len(features), -1, -1)
        for layer in self.layers:
            latents = layer(latents, context)
        tokens: torch.Tensor = self.out(self.norm(latents))
        return tokens

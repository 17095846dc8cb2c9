"""The Perceiver resampler of Flamingo (arXiv:2204.14198), in the form of Idefics2 (arXiv:2405.02246).

Learned latents read the image in `depth` layers. In each, with latents z, image features x and RMSNorm N:

    z <- z + Attention(query = N(z), key and value = [N'(x); N(z)])
    z <- z + down( silu(gate N''(z)) * up N''(z) )

and after the last a norm and a linear layer to the language model's width. Idefics2 has 64 latents and 3 layers.
Different from it: the latents start from N(0, 0.02) and not from ones, from which they would have to part; attention
has as many keys as queries; and the layers are as wide as the features, or `width`, not as the language model.
"""

from typing import TYPE_CHECKING, Literal

from pydantic import Field, model_validator

from stages.train.connectors.contract import Connector, Grid
from stages.train.connectors.initial_weights import seeded

if TYPE_CHECKING:
    import torch


class Perceiver(Connector):
    """A fixed number of tokens, however many features there are."""

    kind: Literal["perceiver"] = "perceiver"
    latents: int = Field(default=64, ge=1)
    """Tokens given."""
    depth: int = Field(default=3, ge=1)
    heads: int = Field(default=8, ge=1)
    width: int | None = Field(default=None, ge=1)
    """Of the latents; a multiple of `heads`. Default: the features'."""

    @model_validator(mode="after")
    def _whole_heads(self) -> "Perceiver":
        if self.width is not None and self.width % self.heads:
            raise ValueError(f"`width` {self.width} is not a multiple of `heads` {self.heads}")
        return self

    def tokens(self, grid: Grid) -> int:
        """One a latent."""
        return self.latents

    def resolved(self, hidden: int | None, vision_width: int, language_width: int) -> "Perceiver":
        """With `width` named: the features', rounded up to a multiple of `heads`."""
        return self.model_copy(update={"width": self.width or -(-vision_width // self.heads) * self.heads})

    def build(self, vision_width: int, language_width: int, seed: int, grid: Grid) -> "torch.nn.Module":
        """Latents from N(0, 0.02), everything else with torch's default weights."""
        from stages.train.connectors.perceiver.network import Resampler

        made = self.resolved(None, vision_width, language_width)
        assert made.width is not None
        with seeded(seed):
            return Resampler(vision_width, made.width, language_width, self.latents, self.depth, self.heads)

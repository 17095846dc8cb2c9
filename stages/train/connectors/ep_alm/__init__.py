"""eP-ALM (arXiv:2303.11403): the cheapest floor, one place in the text and a few million trained weights.

The tower's class token of each of its last six layers goes through one shared linear layer. The results are the value
of a single place before the text at the input of one language model layer after the other, up to the last; a soft
prompt of learned tokens stands before it. Where a tower has no class token, the mean of a layer's patches stands in,
and a convolutional tower, whose layers differ in width, gives only its last map's mean.
"""

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from stages.train.connectors.contract import Connector, FeatureKind, Grid
from stages.train.connectors.initial_weights import seeded

if TYPE_CHECKING:
    import torch


class EpAlm(Connector):
    """One linear layer for all, and a soft prompt."""

    kind: Literal["ep_alm"] = "ep_alm"
    layers: int = Field(default=6, ge=1, le=6)
    """Of the tower, counted from its last; each is read by a language model layer of its own."""
    soft_prompt: int = Field(default=10, ge=0)
    """Learned tokens before the place."""
    features: ClassVar[FeatureKind] = "class_tokens"
    placement: ClassVar[Literal["insert", "replace"]] = "replace"

    @property
    def soft(self) -> int:
        """The soft prompt's tokens."""
        return self.soft_prompt

    def tokens(self, grid: Grid) -> int:
        """The soft prompt, then a token per layer, all of these in one place."""
        return self.soft_prompt + min(self.layers, grid.cells)

    def build(self, vision_width: int, language_width: int, seed: int, grid: Grid) -> "torch.nn.Module":
        """Torch's default weights for the linear layer, N(0, 0.02) for the soft prompt."""
        from stages.train.connectors.ep_alm.network import ClassTokens

        with seeded(seed):
            return ClassTokens(vision_width, language_width, self.layers, self.soft_prompt)

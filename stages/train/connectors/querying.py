"""Settings that the connectors built on transformers' Q-Former share."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field, model_validator

from stages.file_identity import Located
from stages.train.connectors.contract import Connector, Grid
from stages.train.connectors.initial_weights import seeded
from stages.train.model_files import folder_identity

if TYPE_CHECKING:
    import torch


class QueryingSettings(Connector):
    """BERT-base with queries, as in BLIP-2: 12 layers, 768 wide, cross-attention in every second one from the first."""

    queries: int = Field(default=32, ge=1)
    """Tokens given."""
    layers: int = Field(default=12, ge=1)
    width: int = Field(default=768, ge=1)
    heads: int = Field(default=12, ge=1)
    expansion: int = Field(default=4, ge=1)
    """Width of the feed-forward layers over `width`."""
    cross_every: int = Field(default=2, ge=1)
    """Layers from one that looks at the image to the next."""
    pretrained: Located | None = None
    """Folder of a BLIP-2, saved by transformers as safetensors, whose Q-Former and queries it starts from."""

    @model_validator(mode="after")
    def _whole_heads(self) -> "QueryingSettings":
        if self.width % self.heads:
            raise ValueError(f"`width` {self.width} is not a multiple of `heads` {self.heads}")
        return self

    def tokens(self, grid: Grid) -> int:
        """One a query."""
        return self.queries

    def blank(self) -> "QueryingSettings":
        """Without `pretrained`."""
        return self.model_copy(update={"pretrained": None})

    def located(self) -> "QueryingSettings":
        """With an absolute `pretrained`."""
        return self.model_copy(update={"pretrained": self.pretrained and os.path.abspath(self.pretrained)})

    def identity(self) -> dict[str, Any]:
        """With `pretrained` by content."""
        content = None if self.pretrained is None else folder_identity(Path(self.pretrained))
        return {**super().identity(), "pretrained": content}

    def build(self, vision_width: int, language_width: int, seed: int, grid: Grid) -> "torch.nn.Module":
        """Initial weights from `seed`, or from `pretrained` where that has them.

        Raises:
            CuveeError: `pretrained` holds no Q-Former of this shape.
        """
        from stages.train.connectors.querying_network import Querying

        with seeded(seed):
            return Querying(self, vision_width, language_width, self.reads_prompt)

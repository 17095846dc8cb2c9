"""What the probe is told, and the pairs it is trained and measured on."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

Floats = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int64]


class ContrastiveProbe(BaseModel):
    """The probe's settings."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["contrastive_probe"] = "contrastive_probe"
    width: int = Field(64, gt=0)
    """Of the space in which images meet captions."""
    hidden: int | None = Field(None, gt=0)
    """Width between two layers; default: one linear layer."""
    batch: int = Field(64, gt=1)
    learning_rate: float = Field(3e-3, gt=0)
    """At the start; it falls to 0 along a cosine."""
    weight_decay: float = Field(0.01, ge=0)
    candidates: int = Field(32, gt=1)
    """Captions that an image is set against in evaluation, its own included, and the other way round."""

    def steps(self, samples: int) -> int:
        """Optimizer steps: the budget is rounded up to whole batches."""
        return -(-samples // self.batch)


@dataclass(frozen=True)
class EmbeddedPairs:
    """The pairs of one source, in canonical order (by key)."""

    keys: tuple[str, ...]
    images: Floats
    """(n, d) image embeddings."""
    captions: Floats
    """(n, e) caption embeddings."""
    image_ids: Integers
    """(n,) equal numbers are equal images, in all sources of a workbench."""
    caption_ids: Integers
    """(n,) equal numbers are equal captions."""

    def __len__(self) -> int:
        return len(self.keys)

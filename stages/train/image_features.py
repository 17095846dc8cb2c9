"""What training and evaluation ask of images' visual tokens, wherever those come from."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from stages.train.connectors.contract import Grid
from stages.train.vision_tower import BATCH

Halves = npt.NDArray[np.float16]


class ImageFeatures(Protocol):
    """Visual tokens by the hash of an image."""

    @property
    def undecodable(self) -> dict[str, str]:
        """Image hash to the reason it gives no tokens."""
        ...

    @property
    def folder(self) -> Path | None:
        """Where constants of training may lie."""
        ...

    @property
    def width(self) -> int:
        """Width of one visual token."""
        ...

    @property
    def grid(self) -> Grid:
        """How the tokens of an image stand."""
        ...

    @property
    def bytes_per_image(self) -> int:
        """What an image's tokens take up on disk."""
        ...

    @property
    def foresees(self) -> int:
        """Steps ahead whose images it wants to be told of; 0: none."""
        ...

    def expect(self, images: Iterable[str]) -> None:
        """Told the images of the step to come and of those after it: forget all others, and begin to read these."""
        ...

    def read(self, images: Sequence[str]) -> Callable[[], Halves]:
        """Wait for what must be read of images; what is returned computes their (n, tokens, width) tokens."""
        ...

    def gather(self, images: Sequence[str]) -> Halves:
        """(n, tokens, width) of images by hash."""
        ...


def mean_tokens(features: ImageFeatures, images: Sequence[str]) -> npt.NDArray[np.float64]:
    """(n, width) mean token of images by hash, a full batch of the tower at a time."""
    parts = (features.gather(images[start : start + BATCH]) for start in range(0, len(images), BATCH))
    return np.stack([tokens.astype(np.float64).mean(axis=0) for part in parts for tokens in part])

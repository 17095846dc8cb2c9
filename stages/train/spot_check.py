"""Whether cached visual tokens are still what the tower gives: one image in ten thousand, at least one a run."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import xxhash

from schemas.errors import CuveeError
from stages.pixels import decode, flat_rgb
from stages.train.vision_tower import BATCH, VisionTower

if TYPE_CHECKING:
    from stages.train.vision_features import VisualTokens

ONE_IN = 10_000
LEAST_COSINE = 0.999
"""Between an image's tokens, laid end to end, as cached and as computed again: other processors round differently."""


@dataclass
class SpotCheck:
    """Sees the cached images of a run go by, and computes a few of them again."""

    cached: "VisualTokens"
    folder: Path
    taken: list[tuple[str, bytes]] = field(default_factory=list)

    def see(self, image_hash: str, content: bytes) -> None:
        """Take the image where it is the first one that is cached, or where its hash says so."""
        if image_hash not in self.cached.places:
            return
        if not self.taken or xxhash.xxh3_64_intdigest(image_hash.encode()) % ONE_IN == 0:
            self.taken.append((image_hash, content))

    def verify(self, tower: Callable[[], VisionTower]) -> None:
        """Compute the taken images again.

        Raises:
            CuveeError: an image's tokens are others than the cached ones.
        """
        for start in range(0, len(self.taken), BATCH):
            batch = self.taken[start : start + BATCH]
            names = [name for name, _ in batch]
            now = tower().tokens([flat_rgb(decode(content)) for _, content in batch])
            before = self.cached.gather(names)
            if now.shape != before.shape:
                self._refuse(names[0], f"tokens of shape {now.shape[1:]}, cached {before.shape[1:]}")
            for name, cosine in zip(names, cosines(now, before), strict=True):
                if not cosine >= LEAST_COSINE:
                    self._refuse(name, f"a cosine of {cosine:.4f}, expected at least {LEAST_COSINE}")

    def _refuse(self, image: str, found: str) -> None:
        raise CuveeError(
            f"visual tokens of image {image} cached in {self.folder} are not what the image tower gives: {found}; the "
            "tower changed under its name, or the cache is damaged. Remove that folder, and it is computed anew"
        )


def cosines(one: npt.NDArray[np.floating], other: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    """(n,) of the rows of two (n, ...) arrays, each laid end to end; 1 where both are zero, NaN where one holds NaN."""
    a, b = (part.reshape(len(part), -1).astype(np.float64) for part in (one, other))
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    found = (a * b).sum(axis=1) / np.where(lengths == 0, 1.0, lengths)
    return np.where((a == b).all(axis=1), 1.0, found)

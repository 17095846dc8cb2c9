"""Visual tokens computed when training asks for them: nothing is kept on disk, and the same bits come out.

Threads read, decode and preprocess the images of coming steps while the models compute. The tower sees full batches:
what a step leaves empty is filled with images of the next steps whose pixels are there.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from schemas.errors import CuveeError
from stages.pixels import PixelError, decode, flat_rgb
from stages.train.connectors.contract import Grid
from stages.train.image_features import Halves
from stages.train.image_places import image_again
from stages.train.samples import Again
from stages.train.vision_features import VisualTokens
from stages.train.vision_tower import BATCH, VisionTower

if TYPE_CHECKING:
    import torch

AHEAD = 2
"""Steps whose pixels are held beside those of the step that is computed."""


class OnlineTokens:
    """Tokens of images that lie in shards; those of the held-out pairs are on disk."""

    def __init__(
        self,
        kept: VisualTokens,
        places: Mapping[str, Again],
        undecodable: Mapping[str, str],
        tower: VisionTower,
        threads: int,
    ) -> None:
        """How they are computed.

        Args:
            kept: tokens on disk, of one image at least; they are taken where they are there.
            places: image hash to what reads its bytes.
            undecodable: image hash to reason.
            tower: what computes the tokens.
            threads: that read and decode; 0: the training thread does, when it needs an image.
        """
        self.kept, self.places, self.tower = kept, places, tower
        self.undecodable = {**undecodable, **kept.undecodable}
        self.foresees = AHEAD if threads else 0
        self._pool = ThreadPoolExecutor(threads, "decode") if threads else None
        self._coming: dict[str, Future[torch.Tensor]] = {}
        """Pixels of the images that are expected."""
        self._done: dict[str, Halves] = {}
        """Tokens of those that went through the tower already."""

    @property
    def folder(self) -> Path | None:
        """Where constants of training may lie."""
        return self.kept.folder

    @property
    def width(self) -> int:
        """Width of one visual token."""
        return self.kept.width

    @property
    def grid(self) -> Grid:
        """How the tokens of an image stand."""
        return self.kept.grid

    @property
    def bytes_per_image(self) -> int:
        """None is taken up on disk."""
        return 0

    def __contains__(self, image: object) -> bool:
        return image in self.places or image in self.undecodable or image in self.kept

    def expect(self, images: Iterable[str]) -> None:
        """Told the images of the step to come and of those after it: forget all others, and begin to read these."""
        wanted = dict.fromkeys(image for image in images if image in self.places and image not in self.kept)
        for image in [image for image in self._coming if image not in wanted]:
            self._coming.pop(image).cancel()
            self._done.pop(image, None)
        for image in wanted:
            if image not in self._coming:
                self._coming[image] = self._begun(image)

    def gather(self, images: Sequence[str]) -> Halves:
        """(n, tokens, width) of images by hash, in memory for no more pixels than a batch."""
        parts = [self.read(images[start : start + BATCH])() for start in range(0, len(images), BATCH)]
        return np.concatenate(parts)

    def read(self, images: Sequence[str]) -> Callable[[], Halves]:
        """Wait for the pixels of images; what is returned computes their (n, tokens, width) tokens.

        Raises:
            CuveeError: an image cannot be read or is not what it was before training.
        """
        there = self._done, self.kept.places
        missing = [image for image in dict.fromkeys(images) if not any(image in known for known in there)]
        asked = [self._coming.get(image) or self._begun(image) for image in missing]
        pixels = [one.result() for one in asked]
        return lambda: self._tokens(images, dict(zip(missing, pixels, strict=True)))

    def _begun(self, image: str) -> "Future[torch.Tensor]":
        if self._pool is not None:
            return self._pool.submit(self._pixels, image)
        at_once: Future[torch.Tensor] = Future()
        at_once.set_result(self._pixels(image))
        return at_once

    def _pixels(self, image: str) -> "torch.Tensor":
        content = image_again(image, self.places[image])
        try:
            return self.tower.preprocess(flat_rgb(decode(content)))
        except PixelError as error:
            raise CuveeError(f"image {image} decoded before training and does not any more: {error}") from error

    def _tokens(self, images: Sequence[str], pixels: "dict[str, torch.Tensor]") -> Halves:
        found = self._through_the_tower(pixels | self._filling(pixels))
        self._done |= {image: tokens for image, tokens in found.items() if image in self._coming}
        there = self._done | found
        return np.stack([there[image] if image in there else self.kept.gather([image])[0] for image in images])

    def _filling(self, pixels: "dict[str, torch.Tensor]") -> "dict[str, torch.Tensor]":
        """As many of the coming images as have a place in the last batch of these, in the order of the steps."""
        ready = {
            image: one.result()
            for image, one in self._coming.items()
            if image not in pixels and image not in self._done and one.done() and one.exception() is None
        }
        return dict(list(ready.items())[: -len(pixels) % BATCH])

    def _through_the_tower(self, pixels: "dict[str, torch.Tensor]") -> dict[str, Halves]:
        import torch

        names, found = list(pixels), dict[str, Halves]()
        for start in range(0, len(names), BATCH):
            batch = names[start : start + BATCH]
            tokens, _ = self.tower.encode(torch.stack([pixels[image] for image in batch]))
            found |= dict(zip(batch, tokens, strict=True))
        return found

"""An open_clip model that embeds image bytes and captions; knows nothing of columns, works outside Ray.

Bits depend on the sub-batch (`SUB_BATCH` rows of the caller's list, broken images left out), on the thread count, the
device and the dtype, and on nothing else: no autotuning, no TF32.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from schemas.errors import RecipeError
from stages.alignment.clip.weights import HINT, ModelFiles
from stages.pixels import PixelError, decode, flat_rgb

if TYPE_CHECKING:
    import torch

SUB_BATCH = {"cpu": 64, "cuda": 256}
"""Rows per forward pass, by device kind."""
DECODERS = 16
"""Most threads that decode ahead of a GPU; a CPU has nothing to wait for."""

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class ClipModel:
    """A loaded model with its own preprocessing and tokenizer."""

    network: Any
    preprocess: Callable[..., "torch.Tensor"]
    tokenize: Callable[[list[str]], "torch.Tensor"]
    device: str
    dtype: "torch.dtype"
    threads: int

    def embed_images(self, images: Sequence[bytes | None]) -> tuple[Floats, list[str | None]]:
        """Unit-norm embeddings (n, d) and, per image, None or why its row is zero.

        Reasons are those of `stages.pixels.decode`, `missing_image` for None, and `no_embedding` where the model gives
        zero, NaN or infinity.
        """
        rows, reasons = [], []
        for pixels in self._prepared(images):
            sound = [pixel for pixel in pixels if not isinstance(pixel, str)]
            rows.append(self._forward(self.network.encode_image, sound))
            reasons += [pixel if isinstance(pixel, str) else None for pixel in pixels]
        return _unit_rows(rows, reasons)

    def embed_texts(self, texts: Sequence[str | None]) -> tuple[Floats, list[str | None]]:
        """Unit-norm embeddings (n, d) and, per text, None or `missing_caption`, `empty_caption`, `no_embedding`.

        Equal texts are embedded once, in the order in which they first stand.
        """
        reasons = [None if text and text.strip() else _no_caption(text) for text in texts]
        sound = [text for text, reason in zip(texts, reasons, strict=True) if text is not None and reason is None]
        places = {text: place for place, text in enumerate(dict.fromkeys(sound))}
        rows = [self._forward(self.network.encode_text, chunk) for chunk in _chunks(list(places), self._rows)]
        distinct = np.concatenate(rows) if rows else np.zeros((0, 0), np.float32)
        return _unit_rows([distinct[[places[text] for text in sound]]], reasons)

    @property
    def _rows(self) -> int:
        return SUB_BATCH[self.device]

    def _prepared(self, images: Sequence[bytes | None]) -> Iterator[list["torch.Tensor | str"]]:
        """Per sub-batch, pixels or a reason for each image; for a GPU one sub-batch is decoded ahead by threads."""
        ahead = self.device == "cuda"
        with ThreadPoolExecutor(min(DECODERS, os.cpu_count() or 1)) if ahead else nullcontext() as pool:
            spread: Callable[..., Iterable[Any]] = pool.map if pool else map
            waiting = [spread(self._pixels, chunk) for chunk in _chunks(images, self._rows)[:2]]
            for chunk in [*_chunks(images, self._rows)[2:], None, None][: len(_chunks(images, self._rows))]:
                yield list(waiting.pop(0))
                if chunk is not None:
                    waiting.append(spread(self._pixels, chunk))

"""T-MARS: is there more in the image than the caption written out? (Maini et al., arXiv:2307.03132.)

Text in the image is painted over with the mean colour around it, and the caption's cosine is taken again. Pairs whose
masked score stays among the best are kept: a caption that only repeats the lettering falls behind. The paper finds text
with FAST and fills each region with the average colour of its surroundings; its published code ends before the filling,
so what counts as surroundings is ours, and so is the detector (`stages.text_regions`, on a CPU and without weights).
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pydantic import Field

from schemas.columns import CLIP_SCORE, CLIP_SCORE_MASKED, IMAGE, MASKED_AREA, TEXT_EMBEDDING
from stages.clip_model.model import ADDRESSED, IMAGES_AT_ONCE, ClipModel, Reasons, load, upright_rgb
from stages.clip_model.weights import find_model
from stages.device import Device
from stages.file_identity import Located
from stages.pixels import PixelError
from stages.stage import Scorer, Stage
from stages.text_regions import text_mask
from stages.vectors import known_rows, scored, unit

if TYPE_CHECKING:
    from PIL import Image

Pixels = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]

MOST_PIXELS = 1 << 20
"""A larger image is reduced to this many first: many times a model's input, and bounded work."""
RIM_SHARE, LEAST_RIM_PX = 0.5, 4
"""Surroundings reach this share of a region's shorter side beyond its box."""
NO_TEXT = "no_text"
"""Told inside this file of an image that needs no second pass."""


def fill_regions(pixels: Pixels, mask: Mask) -> Pixels:
    """(h, w, 3) pixels whose masked regions have the mean colour of the unmasked pixels around each; a copy.

    Regions are 8-connected. Where all around is masked too, the mean of all unmasked pixels is taken, and of all pixels
    where none is unmasked. Means are rounded to whole levels.
    """
    from scipy import ndimage

    filled = pixels.copy()
    labels, _ = ndimage.label(mask, np.ones((3, 3), bool))
    rest = _mean(pixels[~mask] if not mask.all() else pixels.reshape(-1, 3))
    for number, (rows, columns) in enumerate(ndimage.find_objects(labels), start=1):
        shorter = min(rows.stop - rows.start, columns.stop - columns.start)
        rim = max(LEAST_RIM_PX, round(RIM_SHARE * shorter))
        box = tuple(slice(max(0, side.start - rim), side.stop + rim) for side in (rows, columns))
        around = pixels[box][~mask[box]]
        filled[rows, columns][labels[rows, columns] == number] = _mean(around) if len(around) else rest
    return filled


def without_text(picture: "Image.Image") -> tuple["Image.Image", float]:
    """An RGB image with its text painted over, reduced to `MOST_PIXELS`; and the share of it that was text."""
    from PIL import Image

    scale = (MOST_PIXELS / (picture.width * picture.height)) ** 0.5
    if scale < 1:
        size = max(1, int(picture.width * scale)), max(1, int(picture.height * scale))
        picture = picture.resize(size, Image.Resampling.BICUBIC)
    mask = text_mask(np.asarray(picture.convert("L")))
    if not mask.any():
        return picture, 0.0
    return Image.fromarray(fill_regions(np.asarray(picture), mask)), float(mask.mean())


class Tmars(Stage):
    """The caption's cosine with the image less its text, and how much of the image that text was.

    An image without text keeps its `clip_score`. The second embedding is made as the first one was, by the `clip`
    step's model, whose settings are taken where none are named; the caption's is the stored one, in float16.
    """

    kind: Literal["tmars"] = "tmars"
    model: Located
    """That of the `clip` step, as are the next five."""
    pretrained: Located | None = None
    device: Device = Field(default="auto", validate_default=True)
    dtype: Literal["fp32", "fp16", "bf16", "amp_bf16"] = "fp32"
    threads: int = Field(default=1, gt=0)
    compile: bool = False

    reads: ClassVar[tuple[pa.Field, ...]] = (IMAGE, TEXT_EMBEDDING, CLIP_SCORE)
    writes: ClassVar[tuple[pa.Field, ...]] = (CLIP_SCORE_MASKED, MASKED_AREA)
    shares: ClassVar[tuple[str, ...]] = ("model", "pretrained", "device", "dtype", "threads", "compile")
    batch_rows: ClassVar[int] = 4096

    @property
    def uses_gpu(self) -> bool:  # type: ignore[override]
        """Where its model is to run on one."""
        return self.device == "cuda"

    def widths(self) -> dict[str, int]:
        """That of the model."""
        width = find_model(self.model, self.pretrained).width()
        return {} if width is None else {TEXT_EMBEDDING.name: width}

    def identity(self) -> dict[str, object]:
        """The model by the content of its files, and what else decides about bits."""
        return {
            **find_model(self.model, self.pretrained).address(),
            "device": self.device,
            "dtype": self.dtype,
            "threads": self.threads,
            "compile": self.compile,
            "rows_at_once": IMAGES_AT_ONCE[self.device],
            **ADDRESSED[self.device],
        }

    def open(self) -> Scorer:
        """Load the model."""
        found = find_model(self.model, self.pretrained)
        model = load(found, device=self.device, dtype=self.dtype, threads=self.threads, compiled=self.compile)

        def score(batch: pa.RecordBatch) -> pa.RecordBatch:
            return pa.record_batch(_scored(model, batch), self.returns())

        return score


def _scored(model: ClipModel, batch: pa.RecordBatch) -> list[pa.Array]:
    images = batch[IMAGE.name].to_pylist()
    plain = batch[CLIP_SCORE.name].to_numpy(zero_copy_only=False).astype(np.float64)
    captioned = batch[TEXT_EMBEDDING.name].is_valid().to_numpy(zero_copy_only=False)
    areas = np.zeros(len(images))
    masked, reasons = model.embed(range(len(images)), _masking(images, captioned, areas))
    scores = np.where([reason == NO_TEXT for reason in reasons], plain, np.nan)
    again = np.array([reason is None for reason in reasons], bool)
    if again.any():
        texts, _ = known_rows(batch[TEXT_EMBEDDING.name].filter(pa.array(again)), masked.shape[1], "tmars")
        scores[again] = (masked[again].astype(np.float64) * unit(texts)).sum(axis=1)
    told = _told(reasons, scores)
    sound = np.array([reason is None for reason in told], bool)
    return [
        scored(scores[sound], sound, CLIP_SCORE_MASKED.type),
        scored(areas[sound], sound, MASKED_AREA.type),
        pa.array(told, pa.string()),
    ]


def _masking(
    images: list[bytes | None], captioned: Mask, areas: npt.NDArray[np.float64]
) -> Callable[[int], "Image.Image"]:
    """What the model is shown of each row; `areas` is filled on the way."""

    def picture(row: int) -> "Image.Image":
        if not captioned[row]:
            raise PixelError("missing_embedding", "the caption has none")
        shown, areas[row] = without_text(upright_rgb(images[row]))
        if not areas[row]:
            raise PixelError(NO_TEXT, "nothing to paint over")
        return shown

    return picture


def _told(reasons: Reasons, scores: npt.NDArray[np.float64]) -> Reasons:
    """Reasons for the record: an image without text has none, unless the clip step could not score it."""
    told = [None if reason == NO_TEXT else reason for reason in reasons]
    return [
        reason or (None if np.isfinite(score) else "missing_embedding")
        for reason, score in zip(told, scores, strict=True)
    ]


def _mean(colours: npt.NDArray[np.uint8]) -> Pixels:
    """(3,) rounded mean of (n, 3)."""
    total = colours.sum(axis=0, dtype=np.int64)
    return np.asarray((2 * total + len(colours)) // (2 * len(colours)), np.uint8)

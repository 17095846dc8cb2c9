"""The stage: one decode of luma an image, at a bounded size, and every detector on it."""

from dataclasses import astuple, dataclass
from typing import ClassVar, Literal

import pyarrow as pa

from schemas.columns import (
    BORDER_SHARE,
    COLLAGE_LIKENESS,
    CONSTANT_SHARE,
    ENTROPY_BITS,
    EXIF_MIRRORED,
    EXIF_ROTATION_DEGREES,
    IMAGE,
    SCREENSHOT_LIKENESS,
    SHARPNESS,
    TEXT_COVERAGE,
)
from stages.quality.image_detectors.analysis import Grey
from stages.quality.image_detectors.borders import border_share
from stages.quality.image_detectors.collage import collage_likeness
from stages.quality.image_detectors.constant_share import constant_share
from stages.quality.image_detectors.entropy import entropy_bits
from stages.quality.image_detectors.exif_rotation import exif_rotation
from stages.quality.image_detectors.screenshot import screenshot_likeness
from stages.quality.image_detectors.sharpness import sharpness
from stages.stage import Scorer, Stage
from stages.text_regions import MOST_PIXELS, reduced, text_boxes, text_mask


@dataclass(frozen=True)
class Detections:
    """What the detectors say of one image, in the order of the stage's columns; all null where there is a reason."""

    sharpness: float | None = None
    constant_share: float | None = None
    entropy_bits: float | None = None
    border_share: float | None = None
    exif_rotation_degrees: int | None = None
    exif_mirrored: bool | None = None
    text_coverage: float | None = None
    screenshot_likeness: float | None = None
    collage_likeness: float | None = None
    reason: str | None = None


def detect(image: bytes | None) -> Detections:
    """Every detector on one image file; the reasons are those of `image_header`."""
    from stages.pixels import PixelError, decode_luma

    if image is None:
        return Detections(reason="missing_image")
    try:
        luma, orientation = decode_luma(image, pixels=MOST_PIXELS)
    except PixelError as error:
        return Detections(reason=error.reason)
    return _look(reduced(luma), orientation)


def _look(grey: Grey, orientation: int) -> Detections:
    degrees, mirrored = exif_rotation(orientation)
    text = text_mask(grey)
    return Detections(
        sharpness=sharpness(grey),
        constant_share=constant_share(grey),
        entropy_bits=entropy_bits(grey),
        border_share=border_share(grey),
        exif_rotation_degrees=degrees,
        exif_mirrored=mirrored,
        text_coverage=float(text.mean()),
        screenshot_likeness=screenshot_likeness(grey, len(text_boxes(text))),
        collage_likeness=collage_likeness(grey),
    )


class ImageDetectors(Stage):
    """Blur, blankness, entropy, borders, rotation, text, and likeness to screenshots and collages: a column each.

    All but the EXIF columns are about luma as shown, upright; transparency is dropped, colours below it show.
    """

    version: ClassVar[int] = 3
    kind: Literal["image_detectors"] = "image_detectors"

    reads = (IMAGE,)
    writes = (
        *(SHARPNESS, CONSTANT_SHARE, ENTROPY_BITS, BORDER_SHARE, EXIF_ROTATION_DEGREES, EXIF_MIRRORED),
        *(TEXT_COVERAGE, SCREENSHOT_LIKENESS, COLLAGE_LIKENESS),
    )

    def open(self) -> Scorer:
        """Load the libraries."""
        import scipy.ndimage
        import scipy.sparse.csgraph
        import scipy.spatial  # noqa: F401  loaded here so that the first batch takes no longer than the next

        return self._score

    def _score(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        found = [astuple(detect(image)) for image in batch[IMAGE.name].to_pylist()]
        schema = self.returns()
        columns = zip(*found, strict=True) if found else [()] * len(schema)
        return pa.record_batch(
            [pa.array(values, field.type) for values, field in zip(columns, schema, strict=True)], schema
        )

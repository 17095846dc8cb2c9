"""Image format and size, the inputs of DataComp's basic filtering (arXiv:2304.14108, section 4), and a decode check.

DataComp reads the header only; a cut file has a sound header, so here the first frame is decoded as well.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

import pyarrow as pa

from schemas.columns import ASPECT_RATIO, HEIGHT_PX, IMAGE, IMAGE_FORMAT, MIN_SIDE_PX, WIDTH_PX
from stages.pixels import PixelError, load, read_header, upright_size
from stages.stage import Scorer, Stage


@dataclass(frozen=True)
class Header:
    """What could be read of one image; None where even the header is unreadable."""

    image_format: str | None = None
    width_px: int | None = None
    height_px: int | None = None
    reason: str | None = None
    """Why it cannot be used; None for a sound image."""


def inspect(image: bytes | None, *, decode: bool = True) -> Header:
    """Format, size as shown and, with `decode`, whether the pixels are all there.

    The size is that after the rotation that EXIF or XMP asks for; without `decode` a PNG's EXIF counts only where it
    stands before the pixels. A readable header is told even of an image that does not decode, so that a report can say
    what was lost.
    """
    if image is None:
        return Header(reason="missing_image")
    try:
        picture = read_header(image)
    except PixelError as error:
        return Header(reason=error.reason)
    reason = None
    try:
        if decode:
            load(picture, image)
    except PixelError as error:
        reason = error.reason
    return Header(picture.format, *upright_size(picture), reason)


class ImageHeader(Stage):
    """Format, width, height, shorter side and aspect ratio; broken and cut files get a reason."""

    kind: Literal["image_header"] = "image_header"
    decode: bool = True
    """False: trust the header; cut files then pass, at a tenth of the time."""

    reads: ClassVar[tuple[pa.Field, ...]] = (IMAGE,)
    version: ClassVar[int] = 3
    writes: ClassVar[tuple[pa.Field, ...]] = (IMAGE_FORMAT, WIDTH_PX, HEIGHT_PX, MIN_SIDE_PX, ASPECT_RATIO)

    def open(self) -> Scorer:
        """Nothing to load."""
        return self._score

    def _score(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        headers = [inspect(image.as_py(), decode=self.decode) for image in batch[IMAGE.name]]
        sides = [(header.width_px, header.height_px) for header in headers]
        columns = [
            [header.image_format for header in headers],
            [width for width, _ in sides],
            [height for _, height in sides],
            [min(width, height) if width and height else None for width, height in sides],
            [max(width, height) / min(width, height) if width and height else None for width, height in sides],
            [header.reason for header in headers],
        ]
        schema = self.returns()
        arrays = [pa.array(values, field.type) for values, field in zip(columns, schema, strict=True)]
        return pa.record_batch(arrays, schema)

"""Pixels of any numeric kind as pixels of 8 bits, white where white is.

Pillow's own conversion cuts at 255: a 16-bit grey photo becomes a white sheet, a float photo in [0, 1] a black one, and
a CIE Lab or premultiplied TIFF raises. Its `point` knows 16 bits only with the low byte first.
"""

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL import Image

EIGHT_BIT = frozenset({"1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr"})
"""Modes that every step converts to RGB or grey without a thought."""
WHITES = (1.0, 255.0, 65535.0)
"""Where numbers without a declared white end, by convention."""


def displayable(picture: "Image.Image") -> "Image.Image":
    """The picture itself, or the same in a mode of `EIGHT_BIT`.

    16-bit grey keeps its high byte, as 16-bit colour does in every decoder. Integers and floats end at the first of
    `WHITES` that holds their largest value, at that value itself beyond; what is negative is black.

    Raises:
        ValueError: a mode that Pillow cannot convert.
    """
    if picture.mode in EIGHT_BIT:
        return picture
    if picture.mode.startswith("I;16"):
        return _grey(picture if picture.mode == "I;16" else picture.convert("I"), 256.0)
    if picture.mode in ("I", "F"):
        return _grey(picture, _white(picture) / 255.0)
    return picture.convert("LA" if picture.mode == "La" else "RGB")


def _grey(picture: "Image.Image", steps: float) -> "Image.Image":
    return picture.point(lambda value: value * (1.0 / steps)).convert("L")


def _white(picture: "Image.Image") -> float:
    if picture.format == "PPM":
        return WHITES[-1]  # scaled to 16 bits by the decoder, whatever the file's own white
    _, highest = picture.getextrema()
    if not isinstance(highest, (int, float)) or not math.isfinite(highest):
        return WHITES[1]
    whites = WHITES if picture.mode == "F" else WHITES[1:]
    return next((white for white in whites if highest <= white), float(highest))

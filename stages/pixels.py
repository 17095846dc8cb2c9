"""Image bytes to pixels, one way for every stage: strict about cut files, upright, bounded in size.

A file is whole when its container ends inside the bytes and its first frame decodes. Pillow alone is more lenient: it
takes a PNG without its last chunk and a GIF without its trailer, which is what interrupted downloads leave behind.
What libjpeg repairs in silence (bits flipped inside a scan) no decoder reports, and neither can this.
"""

import io
import warnings
from functools import cache
from types import ModuleType
from typing import TYPE_CHECKING

from stages.image_ends import ends

if TYPE_CHECKING:
    from PIL import Image

MAX_PIXELS = 178_956_970
"""Where Pillow, too, refuses a decompression bomb: 0.5 GiB as RGB."""
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG2000", "ICO", "PPM")
"""Decoders with a clear signature. EPS stays out: Pillow runs Ghostscript on it."""
ORIENTATION = 0x0112
"""The EXIF tag; 2 to 8 ask for a flip or a rotation."""


class PixelError(Exception):
    """Bytes that give no pixels; `reason` is the short stable code for a reason column."""

    def __init__(self, reason: str, detail: str) -> None:
        """`reason` is empty_image, not_an_image, truncated_image, broken_image or too_many_pixels."""
        super().__init__(f"{reason}: {detail}")
        self.reason = reason


def decode(image: bytes, *, max_pixels: int = MAX_PIXELS) -> "Image.Image":
    """The first frame, decoded whole, upright by its EXIF orientation, in its stored mode.

    Raises:
        PixelError: `empty_image`: no bytes. `not_an_image`: no decoder of `FORMATS` knows them. `too_many_pixels`:
            told from the header, before memory is taken. `truncated_image`: the file ends too early, be it by its
            end marker alone. `broken_image`: it is all there and does not decode.
    """
    return _upright(load(read_header(image), image, max_pixels=max_pixels))


def read_header(image: bytes) -> "Image.Image":
    """The image with format, mode and size known and no pixel decoded.

    Raises:
        PixelError: as `decode`, where not even the header can be read.
    """
    if not image:
        raise PixelError("empty_image", "0 bytes")
    try:
        picture: Image.Image = _pillow().open(io.BytesIO(image), formats=FORMATS)
    except MemoryError:
        raise
    except Exception as error:  # plugins raise what they like on hostile bytes
        raise _failure(image, error) from error
    return picture


def load(picture: "Image.Image", image: bytes, *, max_pixels: int = MAX_PIXELS) -> "Image.Image":
    """Decode the first frame of `picture`, which `read_header` made from `image`.

    Raises:
        PixelError: as `decode`.
    """
    if picture.width * picture.height > max_pixels:
        raise PixelError("too_many_pixels", f"{picture.width} x {picture.height}; at most {max_pixels} are decoded")
    if ends(image) is False:
        raise PixelError("truncated_image", f"{len(image)} bytes end before the {picture.format} does")
    _forbid_truncation()
    try:
        picture.load()
    except MemoryError:
        raise
    except Exception as error:
        raise _failure(image, error) from error
    return picture


def stored_size(picture: "Image.Image") -> tuple[int, int]:
    """(width, height) as stored, before any rotation; Pillow swaps those of a TIFF that asks to be turned."""
    width, height = picture.size
    turned = picture.format == "TIFF" and _orientation(picture) >= 5
    return (height, width) if turned else (width, height)


def flat_rgb(picture: "Image.Image") -> "Image.Image":
    """The picture as RGB with transparency dropped, not composed: CLIP models are trained and evaluated that way.

    open_clip's loader (webdataset's `pilrgb`) converts like this before it resizes, so any other background would move
    embeddings away from the model's own. Colours below fully transparent pixels therefore show.
    """
    return picture.convert("RGB")


def _upright(picture: "Image.Image") -> "Image.Image":
    turn = _pillow().Transpose
    turns = {
        2: turn.FLIP_LEFT_RIGHT,
        3: turn.ROTATE_180,
        4: turn.FLIP_TOP_BOTTOM,
        5: turn.TRANSPOSE,
        6: turn.ROTATE_270,
        7: turn.TRANSVERSE,
        8: turn.ROTATE_90,
    }
    # A loaded TIFF stands upright already and has lost its tag.
    method = turns.get(_orientation(picture))
    return picture if method is None else picture.transpose(method)


def _orientation(picture: "Image.Image") -> int:
    try:
        found = picture.getexif().get(ORIENTATION, 1)
    except Exception:  # a damaged EXIF block says nothing about the pixels
        return 1
    return found if isinstance(found, int) and 1 <= found <= 8 else 1


def _failure(image: bytes, error: Exception) -> PixelError:
    if isinstance(error, _pillow().DecompressionBombError):
        return PixelError("too_many_pixels", str(error))
    whole = ends(image)
    if whole is False or (whole is None and "truncated" in str(error).lower()):
        return PixelError("truncated_image", str(error))
    unknown = whole is None and isinstance(error, _pillow().UnidentifiedImageError)
    return PixelError("not_an_image" if unknown else "broken_image", str(error))


@cache
def _pillow() -> ModuleType:
    from PIL import Image

    # Large images, odd EXIF and palettes make it warn; reasons say what matters, a line per sample would drown the log.
    warnings.filterwarnings("ignore", module=r"PIL\.")
    return Image


def _forbid_truncation() -> None:
    """Another library in this process may have made Pillow fill cut images with grey."""
    from PIL import ImageFile

    ImageFile.LOAD_TRUNCATED_IMAGES = False

"""Image bytes to pixels, one way for every stage: strict about cut files, upright, bounded in size.

A file is whole when its container ends inside the bytes and its first frame decodes. Pillow alone is more lenient: it
takes a PNG without its last chunk and a GIF without its trailer, which is what interrupted downloads leave behind.
What libjpeg repairs in silence (bits flipped inside a scan) no decoder reports, and neither can this.

What a file claims is held against limits before memory is taken for it: pixels, the longer side, and pixels per byte,
since WebP, AVIF and JPEG 2000 decoders fill gigabytes from a few hundred bytes that claim a large flat picture.
"""

import io
import re
import warnings
from collections.abc import Callable
from functools import cache
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from stages.displayable import displayable
from stages.image_ends import TIFF_ORDERS, ends, is_foreign, tiff_ends

if TYPE_CHECKING:
    from PIL import Image

MAX_PIXELS = 178_956_970
"""Where Pillow, too, refuses a decompression bomb: 0.5 GiB as RGB."""
MAX_SIDE_PX = 1 << 20
"""JPEG, GIF and WebP end at 2^16; decoders take memory by the row and by the column as well."""
MAX_PIXELS_PER_BYTE = 1000
"""Flat RGB compresses to 344 in PNG; only a picture of one colour or a lie has more."""
ALWAYS_PIXELS = 1 << 24
"""Small enough to decode whatever the file's size."""
MAX_ASPECT = 512
"""Models see the middle of a longer strip: its shorter side is scaled up to their input, and the longer one with it."""
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG2000", "ICO", "PPM")
"""Decoders with a clear signature. EPS stays out: Pillow runs Ghostscript on it."""
ORIENTATION = 0x0112
"""The EXIF tag; 2 to 8 ask for a flip or a rotation."""
TURNED_BY = {"exif", "Raw profile type exif", "xmp", "XML:com.adobe.xmp"}
"""Where Pillow puts what can tell an orientation, but a TIFF's own tag."""


INFLATED = re.compile("Decompressed data too large|Too much memory used in text chunks")
"""What Pillow says of a text or colour profile that it stops inflating, at 1 MiB each and 64 MiB together."""


class PixelError(Exception):
    """Bytes that give no pixels; `reason` is the short stable code for a reason column."""

    def __init__(self, reason: str, detail: str) -> None:
        """`reason` is empty_image, or one of those that `decode` raises."""
        super().__init__(f"{reason}: {detail}")
        self.reason = reason


def decode(image: bytes, *, max_pixels: int = MAX_PIXELS) -> "Image.Image":
    """The first frame, decoded whole, upright by its EXIF or XMP orientation, in 8 bits a channel (see `displayable`).

    Raises:
        PixelError: `empty_image`: no bytes. `not_an_image`: no decoder of `FORMATS` knows them. `unsupported_image`: an
            image of a format without a decoder here. `too_many_pixels` and `decompression_bomb` (far more pixels or
            metadata than its bytes can honestly hold): told before memory is taken. `truncated_image`: the file ends
            too early, be it by its end marker alone. `broken_image`: it is all there and does not decode.
    """
    return _displayed(load(read_header(image), image, max_pixels=max_pixels))


def decode_luma(image: bytes, *, pixels: int, max_pixels: int = MAX_PIXELS) -> tuple[npt.NDArray[np.uint8], int]:
    """(h, w) luma (ITU-R 601) of the first frame, upright, and the orientation that it had, 1 to 8.

    Transparency is dropped, colours below it show. A JPEG is decoded at the smallest of its own scales (a half, a
    quarter, an eighth) that leaves it `pixels`: a large one in a fraction of the time.

    Raises:
        PixelError: as `decode`.
    """
    picture = read_header(image)
    # A loaded TIFF stands upright and has lost its tag; in other formats it may follow the pixels.
    early = orientation(picture) if picture.format == "TIFF" else None
    load(picture, image, max_pixels=max_pixels, luma_pixels=pixels)
    return np.asarray(_displayed(picture).convert("L")), early or orientation(picture)


def read_header(image: bytes) -> "Image.Image":
    """The image with format, mode and size known and no pixel decoded.

    Raises:
        PixelError: as `decode`, where not even the header can be read.
    """
    if not image:
        raise PixelError("empty_image", "0 bytes")
    try:
        picture: Image.Image = _pillow().open(io.BytesIO(image), formats=FORMATS)
    except Exception as error:  # plugins raise what they like on hostile bytes
        raise _failure(image, error) from error
    return picture


def load(
    picture: "Image.Image", image: bytes, *, max_pixels: int = MAX_PIXELS, luma_pixels: int | None = None
) -> "Image.Image":
    """Decode the first frame of `picture`, which `read_header` made from `image`.

    With `luma_pixels`, a JPEG becomes its luma, at the smallest of its own scales with so many pixels.

    Raises:
        PixelError: as `decode`.
    """
    _refuse_bombs(picture, image, max_pixels)
    _forbid_truncation()
    try:
        if luma_pixels is not None:
            scale = max(1, int((picture.width * picture.height / luma_pixels) ** 0.5))
            picture.draft("L", (max(1, picture.width // scale), max(1, picture.height // scale)))
        picture.load()
    except MemoryError as error:
        _refuse_shortage(picture)
        raise PixelError("broken_image", "the decoder wants more memory than the picture's size calls for") from error
    except Exception as error:
        raise _failure(image, error) from error
    return picture


def _refuse_bombs(picture: "Image.Image", image: bytes, max_pixels: int) -> None:
    pixels = picture.width * picture.height
    size = f"{picture.width} x {picture.height}"
    if pixels > max_pixels or max(picture.size) > MAX_SIDE_PX:
        limit = f"at most {max_pixels} are decoded, and {MAX_SIDE_PX} a side"
        raise PixelError("too_many_pixels", f"{size}; {limit}")
    if ends(image) is False:
        raise PixelError("truncated_image", f"{len(image)} bytes end before the {picture.format} does")
    if pixels > ALWAYS_PIXELS and pixels > MAX_PIXELS_PER_BYTE * len(image):
        limit = f"at most {MAX_PIXELS_PER_BYTE} pixels a byte are decoded"
        raise PixelError("decompression_bomb", f"{size} from {len(image)} bytes; {limit}")


def _refuse_shortage(picture: "Image.Image") -> None:
    """Tell a machine without memory from a file that lies: only the file is to blame where its pixels would fit.

    Raises:
        MemoryError: the machine is to blame, and another try may go well.
    """
    bytearray(16 * picture.width * picture.height)


def upright_size(picture: "Image.Image") -> tuple[int, int]:
    """(width, height) as shown, i.e. after the rotation that EXIF or else XMP asks for; decodes nothing.

    Of a PNG that is not loaded only what stands before the pixels is known; ask once, for Pillow remembers the answer.
    """
    width, height = picture.size
    # Pillow swaps the sides of a TIFF by its own tag, not by XMP.
    if TURNED_BY.isdisjoint(picture.info) or ORIENTATION in getattr(picture, "tag_v2", ()):
        return width, height
    # A PNG's own would decode it, before any limit is checked.
    return (height, width) if _orientation(picture, _pillow().Image.getexif) >= 5 else (width, height)


def flat_rgb(picture: "Image.Image") -> "Image.Image":
    """The picture as RGB with transparency dropped, not composed: CLIP models are trained and evaluated that way.

    open_clip's loader (webdataset's `pilrgb`) converts like this before it resizes, so any other background would move
    embeddings away from the model's own. Colours below fully transparent pixels therefore show. Of a strip longer than
    `MAX_ASPECT` times its shorter side the middle is given: scaled to a model's input, a whole one can take gigabytes.
    """
    return middle(picture, MAX_ASPECT).convert("RGB")


def middle(picture: "Image.Image", aspect: int) -> "Image.Image":
    """The picture, or the middle of one that is longer than `aspect` times its shorter side."""
    most = aspect * min(picture.size)
    if max(picture.size) <= most:
        return picture
    left, top = (max(0, side - most) // 2 for side in picture.size)
    return picture.crop((left, top, picture.width - left, picture.height - top))


def most_aspect(preprocess: object) -> int:
    """The longest strip, in shorter sides, of which a model's preprocessing by torchvision or open_clip keeps a pixel.

    A resize by the longer side (open_clip's `resize_mode: longest`) makes the shorter one of more than that vanish.
    """
    for step in getattr(preprocess, "transforms", []):
        if getattr(step, "longest", 0):
            return int(min(step.size))
    return MAX_ASPECT


def _displayed(loaded: "Image.Image") -> "Image.Image":
    picture = _upright(loaded)
    try:
        return displayable(picture)
    except ValueError as error:
        raise PixelError("unsupported_image", f"pixels of kind {picture.mode}: {error}") from error


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
    method = turns.get(orientation(picture))
    return picture if method is None else picture.transpose(method)


def orientation(picture: "Image.Image") -> int:
    """The orientation, 1 to 8, that EXIF tells, or else XMP; 1 where neither does. Decodes a PNG, to look behind it."""
    return _orientation(picture, lambda picture: picture.getexif())


def _orientation(picture: "Image.Image", exif: Callable[["Image.Image"], "Image.Exif"]) -> int:
    try:
        found = exif(picture).get(ORIENTATION, 1)
    except Exception:  # a damaged EXIF block says nothing about the pixels
        return 1
    return found if isinstance(found, int) and 1 <= found <= 8 else 1


def _failure(image: bytes, error: Exception) -> PixelError:
    if isinstance(error, _pillow().DecompressionBombError):
        return PixelError("too_many_pixels", str(error))
    if isinstance(error, ValueError) and INFLATED.search(str(error)):
        return PixelError("decompression_bomb", str(error))
    if is_foreign(image):
        return PixelError("unsupported_image", str(error))
    tiff = image[:2] in TIFF_ORDERS
    whole = tiff_ends(image) if tiff else ends(image)
    if whole is False or (whole is None and "truncated" in str(error).lower()):
        return PixelError("truncated_image", str(error))
    if isinstance(error, _pillow().UnidentifiedImageError):
        if whole is None:
            return PixelError("not_an_image", str(error))
        if tiff:  # of samples or a compression that Pillow does not know
            return PixelError("unsupported_image", str(error))
    return PixelError("broken_image", str(error))


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

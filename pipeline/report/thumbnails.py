"""Thumbnails: an image's bytes become a small WebP inside the page, or a tile that says why they cannot."""

import base64
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image

SIDE_PX = 128
BUDGET_BYTES = 6_000
"""What one thumbnail may take; detailed pictures get a lower quality until they fit."""
QUALITIES = (72, 50, 30, 12)


@dataclass(frozen=True)
class Thumbnail:
    """A picture for the page: a data URI with its size in px, or the reason there is none."""

    uri: str | None
    width: int = SIDE_PX
    height: int = SIDE_PX
    reason: str = ""


def thumbnail(image: bytes | None) -> Thumbnail:
    """At most SIDE_PX on the longer side, re-encoded, so that no byte of the pool reaches the browser's decoders."""
    from stages.pixels import PixelError, decode

    if image is None:
        return Thumbnail(None, reason="no image kept")
    try:
        picture = decode(image)
    except PixelError as error:
        return Thumbnail(None, reason=error.reason.replace("_", " "))
    try:
        return _encode(picture)
    except (OSError, ValueError) as error:
        return Thumbnail(None, reason=f"decodes, but cannot be drawn: {error}"[:80])


def _encode(picture: "Image") -> Thumbnail:
    see_through = picture.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in picture.info
    small = picture.convert("RGBA" if see_through else "RGB")
    small.thumbnail((SIDE_PX, SIDE_PX))
    for quality in QUALITIES:
        file = io.BytesIO()
        small.save(file, "WEBP", quality=quality, method=4)
        if file.tell() <= BUDGET_BYTES:
            break
    data = base64.b64encode(file.getvalue()).decode()
    return Thumbnail(f"data:image/webp;base64,{data}", *small.size)

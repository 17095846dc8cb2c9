"""An image file as the data URL that chat endpoints take: the bytes as they are, never re-encoded."""

import base64

from stages.pixels import PixelError, load, read_header

MEDIA_TYPES = {"MPO": "jpeg", "JPEG2000": "jp2", "PPM": "x-portable-anymap", "ICO": "x-icon"}
"""Where the type is not the format's name in lower case; MPO is a JPEG with more behind it."""


def data_url(image: bytes, most_bytes: int) -> str:
    """`data:image/...;base64,...` of a file that decodes here, so that nothing is paid for a broken one.

    Raises:
        PixelError: as `stages.pixels.decode`; `image_too_large`: more than `most_bytes`.
    """
    if len(image) > most_bytes:
        raise PixelError("image_too_large", f"{len(image)} bytes; the backend sends at most {most_bytes}")
    picture = load(read_header(image), image)
    named = str(picture.format)
    return f"data:image/{MEDIA_TYPES.get(named, named.lower())};base64,{base64.b64encode(image).decode()}"

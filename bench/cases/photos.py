"""Real photos out of WebDataset tars, as they were and as JPEG once more."""

import io
import tarfile

from PIL import Image


def photos(shards: list[str]) -> list[bytes]:
    """The image files of some tars, in order."""
    found = []
    for shard in shards:
        with tarfile.open(shard) as tar:
            files = ((member.name, tar.extractfile(member)) for member in tar)
            found += [file.read() for name, file in files if file and name.lower().endswith((".jpg", ".jpeg", ".png"))]
    return found


def jpeg_bytes(picture: Image.Image, quality: int = 88, **options: object) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=quality, **options)
    return buffer.getvalue()


def jpeg(picture: Image.Image, quality: int) -> Image.Image:
    """The picture after a JPEG encoder had it."""
    return Image.open(io.BytesIO(jpeg_bytes(picture, quality)))

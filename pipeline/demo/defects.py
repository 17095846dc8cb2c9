"""The defects planted in the demo's pool: wrong captions, gentle copies, broken files."""

import io

import numpy as np
from PIL import Image, ImageEnhance

from pipeline.demo.captions import caption
from pipeline.demo.scenes import Scene, differs, draw_scene, pick

HTML = b"<!DOCTYPE html>\n<html><head><title>404 Not Found</title></head><body>The image has moved.</body></html>\n"


def encode(image: Image.Image, suffix: str, quality: int = 90) -> bytes:
    """The image as a file: `jpg`, `png` or `webp`."""
    file = io.BytesIO()
    formats = {"jpg": "JPEG", "png": "PNG", "webp": "WEBP"}
    image.save(file, formats[suffix], quality=quality)
    return file.getvalue()


def wrong_caption(scene: Scene, phrasing: str, rng: np.random.Generator, favoured: tuple[str, ...] = ()) -> str:
    """The caption of another scene; the number, shape and colour it opens with are not in this one."""
    other = draw_scene(rng, favoured)
    while not differs(scene, other):
        other = draw_scene(rng, favoured)
    return caption(other, phrasing, rng)


def near_copy(image: Image.Image, suffix: str, rng: np.random.Generator) -> tuple[bytes, str]:
    """The same picture as another file, and its suffix: re-encoded, scaled by up to 10 %, or 6 % lighter or darker."""
    edit = pick(rng, ("encode", "resize", "light"))
    if edit == "resize":
        factor = pick(rng, (0.9, 0.94, 1.06, 1.1))
        image = image.resize((round(image.width * factor), round(image.height * factor)), Image.Resampling.BICUBIC)
    elif edit == "light":
        image = ImageEnhance.Brightness(image).enhance(pick(rng, (0.94, 0.97, 1.03, 1.06)))
    elif suffix == "jpg":
        return encode(image, "webp", 85), "webp"
    return encode(image, "jpg", int(rng.integers(80, 89))), "jpg"


def broken_file(data: bytes, rng: np.random.Generator) -> bytes:
    """What a crawler may store instead of the file: its first part, nothing, a web page, or random bytes."""
    kind = pick(rng, ("cut", "cut", "empty", "page", "random"))
    if kind == "cut":
        return data[: int(len(data) * rng.uniform(0.3, 0.8))]
    return {"empty": b"", "page": HTML, "random": rng.bytes(len(data) // 2)}[kind]

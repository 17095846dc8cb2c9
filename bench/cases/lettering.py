"""Words painted into pictures: many faces, sizes, angles and inks, with and without a plate behind."""

from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter, ImageFont

FACES = (
    *("DejaVuSans", "DejaVuSans-Bold", "DejaVuSans-Oblique", "DejaVuSerif", "DejaVuSerif-Bold", "DejaVuSansMono"),
    *("STIXGeneral", "STIXGeneralBol", "STIXGeneralItalic", "cmr10", "cmss10", "cmtt10", "cmb10"),
)
"""The text faces that matplotlib brings along."""
TEXT = (
    "the quick brown fox jumps over a lazy dog sale now open fresh market best price offer summer winter photo studio "
    "image library free delivery limited edition new arrival contact us today visit our shop online 50% off 2024 "
    "$19.99 call 555-0123 welcome home family kitchen garden how to make your own original design number one"
)
WORDS = TEXT.split()

Mask = npt.NDArray[np.bool_]


def phrase(rng: np.random.Generator, words: int) -> str:
    """Some words in lower, upper or title case."""
    chosen = " ".join(WORDS[k] for k in rng.integers(len(WORDS), size=words).tolist())
    return (chosen, chosen.upper(), chosen.title())[int(rng.integers(3))]


@cache
def face(name: str, size: int) -> ImageFont.FreeTypeFont:
    import matplotlib

    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts/ttf" / f"{name}.ttf", size)


def any_face(rng: np.random.Generator, size: int) -> ImageFont.FreeTypeFont:
    return face(FACES[int(rng.integers(len(FACES)))], size)


def lettered(
    picture: Image.Image, rng: np.random.Generator, *, size_px: int | None = None, degrees: float | None = None
) -> tuple[Image.Image, Mask]:
    """The picture (RGB) with one to three lines of text, and the (h, w) pixels that ink covers by half or more.

    Letters of 9 px (an x-height of 5) to a fifth of the shorter side, up to 15 degrees off the level, ink at 55 to
    100 % of the difference to black or white, whichever is farther; a plate behind every fourth.
    """
    most = max(10, min(picture.size) // 5)
    size = size_px or int(np.exp(rng.uniform(np.log(9), np.log(most))))
    layer = _layer(picture.size, size, int(rng.integers(1, 4)), rng)
    layer = layer.rotate(rng.uniform(-15, 15) if degrees is None else degrees, Image.Resampling.BICUBIC)
    cover = np.asarray(_middle(layer, picture.size), np.float64) / 255
    if (cover > 0.5).sum() < 20:  # turned out of the picture
        return lettered(picture, rng, size_px=size_px, degrees=degrees)
    ground = np.asarray(picture, np.float64)
    dark = bool(ground.mean(axis=2)[cover > 0.5].mean() < 128)
    ink = np.clip((255.0 if dark else 0.0) + rng.normal(0, 25, 3), 0, 255)
    if rng.random() < 0.25:
        ground[_plate(cover, size)] = np.clip((0.0 if dark else 255.0) + rng.normal(0, 25, 3), 0, 255)
    painted = ground + (cover * rng.uniform(0.55, 1))[..., None] * (ink - ground)
    return Image.fromarray(np.clip(painted + 0.5, 0, 255).astype(np.uint8)), cover >= 0.5


def _layer(shape: tuple[int, int], size: int, lines: int, rng: np.random.Generator) -> Image.Image:
    """White lines on a black square three times as wide as the picture, so that turning it leaves no corner empty."""
    width, height = shape
    letters = any_face(rng, size)
    layer = Image.new("L", (3 * width, 3 * height))
    left, top = width * (1 + rng.uniform(0.02, 0.3)), height * (1 + rng.uniform(0.05, 0.6))
    for line in range(lines):
        words = phrase(rng, int(rng.integers(1, 6)))
        while len(words) > 3 and letters.getlength(words) > 0.9 * width:
            words = words[:-1].rstrip()
        ImageDraw.Draw(layer).text((left, top + 1.25 * size * line), words, fill=255, font=letters)
    return layer


def _middle(layer: Image.Image, shape: tuple[int, int]) -> Image.Image:
    width, height = shape
    return layer.crop((width, height, 2 * width, 2 * height))


def _plate(cover: npt.NDArray[np.float64], size: int) -> Mask:
    """The text's surroundings: a blurred block around each line."""
    spread = Image.fromarray((cover > 0.3).astype(np.uint8) * 255).filter(ImageFilter.BoxBlur(max(2, size // 2)))
    return np.asarray(spread) > 0

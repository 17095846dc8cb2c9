"""Rows of equal things that are no letters: beads, windows, bars, rings, tiles; what a text detector falls for."""

import numpy as np
from PIL import Image, ImageDraw

SHAPES = ("disc", "window", "bar", "ring", "triangle", "cross")


def rows_of_things(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    """The picture (RGB) with one to six rows of three to fourteen equal shapes, turned by up to 20 degrees."""
    layer = Image.new("L", (3 * picture.width, 3 * picture.height))
    brush, shape = ImageDraw.Draw(layer), SHAPES[int(rng.integers(len(SHAPES)))]
    size = np.exp(rng.uniform(np.log(6), np.log(max(8, min(picture.size) / 5))))
    wide, pitch, lead = size * rng.uniform(0.4, 1.6), size * rng.uniform(0.15, 1.2), size * rng.uniform(0.2, 1.5)
    x, y = picture.width * (1 + rng.uniform(0, 0.4)), picture.height * (1 + rng.uniform(0, 0.5))
    columns = int(rng.integers(3, 15))
    for row in range(int(rng.integers(1, 7))):
        for column in range(columns):
            left, top = x + column * (wide + pitch), y + row * (size + lead)
            _draw(brush, shape, (left, top, left + wide, top + size), max(1, int(size / 6)))
    layer = layer.rotate(rng.uniform(-20, 20), Image.Resampling.BICUBIC)
    layer = layer.crop((picture.width, picture.height, 2 * picture.width, 2 * picture.height))
    tone = tuple(int(level) for level in rng.integers(0, 256, 3))
    share = rng.uniform(0.6, 1)
    return Image.composite(Image.new("RGB", picture.size, tone), picture, layer.point(lambda level: level * share))


def _draw(brush: ImageDraw.ImageDraw, shape: str, box: tuple[float, float, float, float], thick: int) -> None:
    left, top, right, bottom = box
    middle, level = (left + right) / 2, (top + bottom) / 2
    if shape == "disc":
        brush.ellipse(box, fill=255)
    elif shape == "ring":
        brush.ellipse(box, outline=255, width=thick)
    elif shape == "window":
        brush.rectangle(box, fill=255)
        brush.line((left, level, right, level), fill=0, width=thick)
    elif shape == "bar":
        brush.rectangle((middle - thick, top, middle + thick, bottom), fill=255)
    elif shape == "triangle":
        brush.polygon((middle, top, right, bottom, left, bottom), fill=255)
    else:
        brush.line((left, top, right, bottom), fill=255, width=thick)
        brush.line((left, bottom, right, top), fill=255, width=thick)

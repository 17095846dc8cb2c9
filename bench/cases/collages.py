"""Several photos as one picture: grids and strips, with and without gutters, also of unequal parts."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageOps

GRIDS = ((1, 2), (2, 1), (1, 3), (3, 1), (2, 2), (2, 3), (3, 3))
"""Columns and rows."""


def collage(pictures: Sequence[Image.Image], rng: np.random.Generator) -> Image.Image:
    """Two to nine of the pictures in a grid, 200 to 700 px a side; half with a gutter of up to 3 % of it."""
    columns, rows = GRIDS[int(rng.integers(len(GRIDS)))]
    width, height = (int(rng.integers(200, 701)) for _ in range(2))
    gutter = int(rng.uniform(0.005, 0.03) * min(width, height)) + 1 if rng.random() < 0.5 else 0
    tone = (255, 0)[int(rng.random() < 0.3)]
    whole = Image.new("RGB", (width, height), (tone,) * 3)
    across, down = _cuts(width, columns, rng), _cuts(height, rows, rng)
    chosen = rng.permutation(len(pictures)).tolist()
    for number in range(columns * rows):
        x, y = number % columns, number // columns
        left, right = across[x] + gutter * (x > 0), across[x + 1]
        top, bottom = down[y] + gutter * (y > 0), down[y + 1]
        picture = pictures[chosen[number % len(chosen)]]
        whole.paste(ImageOps.fit(picture, (right - left, bottom - top)), (left, top))
    return whole


def _cuts(side: int, parts: int, rng: np.random.Generator) -> list[int]:
    """Where the parts begin and end: equal, or shifted by up to a sixth of a part."""
    shift = rng.uniform(-1, 1, parts + 1) / 6 * (rng.random() < 0.4)
    inner = [round(side * (k + shift[k]) / parts) for k in range(1, parts)]
    return [0, *inner, side]

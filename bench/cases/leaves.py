"""Pictures with edges of all sizes, out of nothing: shaded ellipses that cover each other ("dead leaves")."""

import numpy as np
import numpy.typing as npt
from PIL import Image

Floats = npt.NDArray[np.float64]


def leaves(rng: np.random.Generator, side_px: int = 192) -> Image.Image:
    """RGB, `side_px` a side: 400 ellipses, radii of density r^-3 from a fiftieth to a third of it; grain."""
    pixels = np.empty((side_px, side_px, 3))
    pixels[:] = rng.uniform(40, 215, 3)
    low, high = side_px / 50, side_px / 3
    for radius in ((low**-2 - rng.random(400) * (low**-2 - high**-2)) ** -0.5).tolist():
        _leaf(pixels, radius, rng)
    return Image.fromarray(np.clip(pixels + rng.normal(0, 3, (side_px, side_px, 1)), 0, 255).astype(np.uint8))


def _leaf(pixels: Floats, radius: float, rng: np.random.Generator) -> None:
    """Cover one ellipse, up to three times as long as wide, with a shaded colour, in place."""
    side = len(pixels)
    cx, cy = rng.uniform(0, side, 2)
    left, top = (max(0, int(centre - radius)) for centre in (cx, cy))
    part = pixels[top : int(cy + radius) + 1, left : int(cx + radius) + 1]
    y, x = np.mgrid[top : top + part.shape[0], left : left + part.shape[1]]
    turn, slim = rng.uniform(0, np.pi), rng.uniform(1, 3)
    along = (x - cx) * np.cos(turn) + (y - cy) * np.sin(turn)
    across = (y - cy) * np.cos(turn) - (x - cx) * np.sin(turn)
    inside = along**2 + (slim * across) ** 2 < radius**2
    shade = (along * rng.normal() + across * rng.normal()) / radius * 25
    part[inside] = (rng.uniform(10, 245, 3) + shade[..., None])[inside]

"""Pictures with the statistics of photos, out of nothing: discs that cover each other, shaded and grainy ("dead leaves")."""

import numpy as np
from PIL import Image


def leaves(rng: np.random.Generator, side_px: int = 192) -> Image.Image:
    """RGB, `side_px` a side: some 250 discs, radii with density r^-3, from the farthest to the nearest."""
    y, x = np.mgrid[0:side_px, 0:side_px]
    pixels = np.empty((side_px, side_px, 3))
    pixels[:] = rng.uniform(40, 215, 3)
    for radius in _radii(rng, 250, side_px):
        cx, cy = rng.uniform(0, side_px, 2)
        inside = (x - cx) ** 2 + (y - cy) ** 2 < radius**2
        shade = ((x - cx) * rng.normal() + (y - cy) * rng.normal()) / radius * 18
        pixels[inside] = (rng.uniform(20, 235, 3) + shade[..., None])[inside]
    grain = rng.normal(0, 3, (side_px, side_px, 1))
    return Image.fromarray(np.clip(pixels + grain, 0, 255).astype(np.uint8))


def _radii(rng: np.random.Generator, count: int, side: int) -> list[float]:
    """Between 2 px and a third of the side, by inversion of the distribution."""
    low, high = 2.0, side / 3
    radii: list[float] = (low**-2 - rng.random(count) * (low**-2 - high**-2)) ** -0.5
    return [float(radius) for radius in radii]

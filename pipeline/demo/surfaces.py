"""What covers a ground or a shape: tones in grey levels for backdrops, brightness factors for fillings."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from PIL import Image

Floats = npt.NDArray[np.floating]


class Canvas:
    """A pixel grid with a random direction and phase for what is drawn on it."""

    def __init__(self, width: int, height: int, rng: np.random.Generator) -> None:
        """Pixel centres in [0, 1] as `y` (height, 1) and `x` (1, width); `along` (height, width) is one direction."""
        self.width, self.height, self.rng = width, height, rng
        self.y: Floats = (np.arange(height)[:, None] + 0.5) / height
        self.x: Floats = (np.arange(width)[None, :] + 0.5) / width
        angle, self.phase = rng.uniform(0, 2 * np.pi, 2)
        self.along: Floats = np.cos(angle) * self.x + np.sin(angle) * self.y

    def waves(self, low: float, high: float) -> Floats:
        """(height, width) sine along the direction, `low` to `high` radians over the image."""
        wave: Floats = np.sin(self.along * self.rng.uniform(low, high) + self.phase)
        return wave

    def slope(self) -> Floats:
        """(height, width) ramp along the direction, with mean 0."""
        ramp: Floats = self.along - self.along.mean()
        return ramp


def smooth_noise(width: int, height: int, cells: int, rng: np.random.Generator) -> Floats:
    """(height, width) smooth noise around 0, about one period per cell."""
    small = Image.fromarray(rng.normal(0, 1, (cells, cells)).astype(np.float32))
    return np.asarray(small.resize((width, height), Image.Resampling.BICUBIC))


def _checks(canvas: Canvas) -> Floats:
    cells = canvas.rng.uniform(5, 10) * np.pi
    squares = np.sin(canvas.x * cells + canvas.phase) * np.sin(canvas.y * cells + canvas.phase)
    tones: Floats = 11 * np.sign(squares)
    return tones


def _vignette(canvas: Canvas) -> Floats:
    x, y = canvas.rng.uniform(0.25, 0.75, 2)
    tones: Floats = 14 - 60 * ((canvas.x - x) ** 2 + (canvas.y - y) ** 2)
    return tones


def _grid(canvas: Canvas) -> Floats:
    pitch = int(canvas.rng.integers(7, 12))
    line = (np.arange(canvas.width) % pitch == 0) | (np.arange(canvas.height)[:, None] % pitch == 0)
    return np.where(line, -26.0, 0.0)


BACKDROP_TONES: dict[str, Callable[[Canvas], Floats]] = {
    "plain": lambda canvas: np.zeros((canvas.height, canvas.width)),
    "gradient": lambda canvas: 34 * canvas.slope(),
    "stripes": lambda canvas: 11 * np.sign(canvas.waves(30, 60)),
    "checks": _checks,
    "blobs": lambda canvas: 22 * smooth_noise(canvas.width, canvas.height, 4, canvas.rng),
    "vignette": _vignette,
    "grid": _grid,
    "clouds": lambda canvas: 30 * smooth_noise(canvas.width, canvas.height, 7, canvas.rng),
}
"""(height, width) grey levels added to a backdrop's colour."""

FILLINGS: dict[str, Callable[[Canvas], Floats]] = {
    "solid": lambda canvas: np.ones((canvas.height, canvas.width)),
    "stripes": lambda canvas: 1 + 0.16 * np.sign(canvas.waves(50, 90)),
    "shaded": lambda canvas: 1 + 0.35 * canvas.slope(),
    "speckled": lambda canvas: 1 + 0.18 * np.sign(canvas.rng.normal(0, 1, (canvas.height, canvas.width))),
    "glossy": lambda canvas: 1.12 - 0.35 * ((canvas.y * canvas.rng.uniform(3, 5) + canvas.phase) % 1) + 0 * canvas.x,
    "hatched": lambda canvas: 1.1 - 0.3 * (canvas.waves(60, 100) > 0.3),
}
"""(height, width) factors on a shape's colour."""

"""Pixels of a scene, in one of several styles; and the abstract screens of the off-domain source.

The encoder is trained on `TRAINING_STYLES` only; the demo's corpus is drawn in `DEMO_STYLES` only.
"""

import math
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from pipeline.demo.outlines import outline
from pipeline.demo.scenes import BACKDROPS, COLOURS, RADIUS, WORD_STRIP, Group, Scene, pick
from pipeline.demo.surfaces import BACKDROP_TONES, FILLINGS, Canvas, Floats, smooth_noise

OVERSAMPLING = 3
"""Masks are drawn this many times larger and averaged."""


@dataclass(frozen=True)
class Style:
    """How a scene is drawn."""

    backdrop: str
    filling: str
    edge: float = 0.0
    """Brightness factor of the rim: 0 = no rim, < 1 darker, > 1 lighter."""
    shadow: float = 0.0
    """Share of the light a shape takes from the ground beside it."""
    grain: float = 0.0
    """Standard deviation of the pixel noise, in grey levels."""
    uneven: float = 0.0
    """Strength of uneven light over the image, as a share of the brightness."""


TRAINING_STYLES = {
    "flat": Style("plain", "solid"),
    "outlined": Style("gradient", "solid", edge=0.45),
    "striped": Style("stripes", "stripes"),
    "cutout": Style("checks", "solid", shadow=0.5),
    "soft": Style("blobs", "shaded", grain=3.0),
    "chalk": Style("plain", "speckled", edge=1.25, grain=9.0),
}
DEMO_STYLES = {
    "studio": Style("vignette", "glossy", shadow=0.35, uneven=0.12),
    "notebook": Style("grid", "hatched", edge=0.7, uneven=0.12),
    "street": Style("clouds", "shaded", edge=0.8, grain=8.0, uneven=0.22),
}


@dataclass(frozen=True)
class Drawing:
    """An image and where each group lies in it."""

    pixels: npt.NDArray[np.uint8]
    """(height, width, 3)."""
    masks: tuple[Floats, ...]
    """Per group (height, width): the share of each pixel it covers."""


def draw(scene: Scene, style: Style, rng: np.random.Generator) -> Drawing:
    """Draw a scene: 64 to 96 px a side, anti-aliased, colours jittered around their names."""
    width, height = _frame(rng)
    image = _ground(scene.backdrop, style, width, height, rng)
    masks = []
    for group in scene.groups:
        outer, inner = _masks(group, width, height, 0.78 if style.edge else 0.0, rng)
        _paint(image, group, style, outer, inner, rng)
        masks.append(outer)
    if scene.word:
        _write(image, scene.word, sum(BACKDROPS[scene.backdrop]) < 330, rng)
    return Drawing(_finish(image, style, rng), tuple(masks))


def draw_screen(rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """An off-domain image, (height, width, 3): interfering waves, bars and panels, as on a screen; no scene in it."""
    width, height = _frame(rng)
    canvas = Canvas(width, height, rng)
    wave = np.zeros((height, width))
    for fx, fy, phase in rng.uniform(-1, 1, (4, 3)).tolist():
        wave += np.sin(2 * np.pi * (4 * fx * canvas.x + 4 * fy * canvas.y + phase))
    low, high = rng.uniform(0, 255, (2, 3))
    image = low + (high - low) * (wave[..., None] / 8 + 0.5)
    for _ in range(int(rng.integers(3, 8))):
        left, right = np.sort(rng.integers(0, width + 1, 2))
        top, bottom = np.sort(rng.integers(0, height + 1, 2))
        panel = image[top:bottom, left:right]
        panel[:] = 0.35 * panel + 0.65 * rng.uniform(0, 255, 3)
        panel[:: int(rng.integers(3, 9))] *= 0.7
    return _bytes(image + rng.normal(0, 2, (height, width, 1)))


def _frame(rng: np.random.Generator) -> tuple[int, int]:
    """Width and height in px."""
    side = int(rng.integers(64, 85))
    wide, high = pick(rng, ((1.0, 1.0), (1.14, 1.0), (1.0, 1.14)))
    return round(side * wide), round(side * high)


def _ground(backdrop: str, style: Style, width: int, height: int, rng: np.random.Generator) -> Floats:
    """(height, width, 3) backdrop; tones darken a light colour and lighten a dark one, so that its name stays true."""
    colour = np.asarray(BACKDROPS[backdrop], np.float64)
    tones = np.broadcast_to(BACKDROP_TONES[style.backdrop](Canvas(width, height, rng)), (height, width))[..., None]
    if colour.mean() > 200:
        tones = -np.abs(tones)
    elif colour.mean() < 70:
        tones = np.abs(tones)
    image: Floats = colour + rng.normal(0, 5, 3) + rng.normal(0, 5) + tones
    return image


def _masks(
    group: Group, width: int, height: int, inner: float, rng: np.random.Generator
) -> tuple[Floats, Floats | None]:
    """Coverage of the group's objects, and of the same objects shrunk to `inner` of their size (0: None)."""
    images = [Image.new("L", (width * OVERSAMPLING, height * OVERSAMPLING)) for _ in range(2 if inner else 1)]
    brushes = [ImageDraw.Draw(image) for image in images]
    radius = RADIUS[group.size] * min(width, height) * OVERSAMPLING
    for x, y in group.places:
        turn, grow = math.radians(rng.uniform(-12, 12)), rng.uniform(0.9, 1.0)
        turned = outline(group.shape) @ [[math.cos(turn), math.sin(turn)], [-math.sin(turn), math.cos(turn)]]
        for brush, share in zip(brushes, (1.0, inner), strict=False):
            points = turned * (radius * grow * share) + [x * width * OVERSAMPLING, y * height * OVERSAMPLING]
            brush.polygon([(px, py) for px, py in points.tolist()], fill=255)
    covered: list[Floats] = [np.asarray(image.reduce(OVERSAMPLING), np.float64) / 255 for image in images]
    return covered[0], covered[1] if inner else None


def _paint(
    image: Floats, group: Group, style: Style, outer: Floats, inner: Floats | None, rng: np.random.Generator
) -> None:
    """Lay shadow, rim and filling of a group over the image, in place."""
    if style.shadow:
        image *= 1 - style.shadow * np.roll(outer, (3, 3), (0, 1))[..., None] * (1 - outer[..., None])
    colour = np.asarray(COLOURS[group.colour]) * rng.uniform(0.9, 1.08) + rng.normal(0, 6, 3)
    filling = colour * FILLINGS[style.filling](Canvas(image.shape[1], image.shape[0], rng))[..., None]
    if inner is not None:
        filling = inner[..., None] * filling + (1 - inner[..., None]) * colour * style.edge
    image += outer[..., None] * (filling - image)


def _write(image: Floats, word: str, light: bool, rng: np.random.Generator) -> None:
    """Letter the word into the strip at the bottom, in place."""
    height, width = image.shape[:2]
    layer = Image.new("L", (width, height))
    font = _font(round(height * 0.19))
    room = max(1.0, width - font.getlength(word) - 2)
    place = (1 + rng.random() * room, height * (1 - WORD_STRIP))
    ImageDraw.Draw(layer).text(place, word, fill=255, font=font)
    ink = 236.0 if light else 22.0
    image += (np.asarray(layer, np.float64) / 255)[..., None] * (ink - image)


def _finish(image: Floats, style: Style, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """Light, grain and rounding."""
    height, width = image.shape[:2]
    if style.uneven:
        light = np.clip(smooth_noise(width, height, 3, rng), -1.5, 1.5)
        image = image * (1 + style.uneven * light)[..., None]
    if style.grain:
        image = image + rng.normal(0, style.grain, image.shape)
    return _bytes(image)


def _bytes(image: Floats) -> npt.NDArray[np.uint8]:
    rounded: npt.NDArray[np.uint8] = np.clip(image + 0.5, 0, 255).astype(np.uint8)
    return rounded


@cache
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Pillow's own font: no font needs to be installed."""
    return ImageFont.load_default(size)

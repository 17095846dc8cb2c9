"""What goes wrong with pictures: blur, emptiness, frames; each as a positive, with hard negatives beside it."""

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter

from bench.cases.lettering import any_face, phrase

Floats = npt.NDArray[np.float64]


def gaussian_blurred(picture: Image.Image, sigma: float) -> Image.Image:
    """`sigma` in px of a picture of 224 x 224; it grows with the picture."""
    return picture.filter(ImageFilter.GaussianBlur(sigma * _scale(picture)))


def motion_blurred(picture: Image.Image, length: float, degrees: float) -> Image.Image:
    """The mean along a straight track of `length` px of a picture of 224 x 224."""
    steps = max(2, round(2 * length * _scale(picture)))
    along = np.linspace(-0.5, 0.5, steps) * length * _scale(picture)
    total = np.zeros((picture.height, picture.width, 3))
    for way in along.tolist():
        x, y = way * np.cos(np.radians(degrees)), way * np.sin(np.radians(degrees))
        moved = picture.transform(picture.size, Image.Transform.AFFINE, (1, 0, x, 0, 1, y), Image.Resampling.BILINEAR)
        total += np.asarray(moved, np.float64)
    return _picture(total / steps)


def near_constant(rng: np.random.Generator) -> Image.Image:
    """One colour of any size; with noise up to 6 levels, or a slope of up to 10 levels across it."""
    width, height = (int(rng.integers(40, 900)) for _ in range(2))
    slope = np.linspace(0, rng.uniform(0, 10) * (rng.random() < 0.5), width)[None, :, None]
    pixels = rng.uniform(0, 255, 3) + np.broadcast_to(slope, (height, width, 3))
    return _picture(pixels + rng.normal(0, rng.uniform(0, 6) * (rng.random() < 0.7) + 1e-9, pixels.shape))


def nearly_empty(rng: np.random.Generator) -> Image.Image:
    """What only looks empty: a small disc or a short word on one colour, or a soft gradient of 40 and more levels."""
    width, height = (int(rng.integers(120, 700)) for _ in range(2))
    ground, ink = (255, 0) if rng.random() < 0.5 else (20, 230)
    if rng.random() < 0.3:
        slope = np.linspace(0, rng.uniform(40, 200), width)[None, :, None]
        return _picture(np.broadcast_to(slope, (height, width, 3)) + rng.uniform(0, 50, 3))
    picture = Image.new("RGB", (width, height), (ground,) * 3)
    side = int(rng.uniform(0.16, 0.5) * min(width, height))
    left, top = int(rng.integers(0, width - side)), int(rng.integers(0, height - side))
    if rng.random() < 0.5:
        ImageDraw.Draw(picture).ellipse((left, top, left + side, top + side), fill=(ink,) * 3)
    else:
        ImageDraw.Draw(picture).text((left // 2, top), phrase(rng, 1), fill=(ink,) * 3, font=any_face(rng, side))
    return picture


def low_content(rng: np.random.Generator) -> Image.Image:
    """A logo-like drawing: two to four flat tones."""
    width, height = (int(rng.integers(120, 700)) for _ in range(2))
    tones = rng.integers(0, 256, (4, 3)).tolist()
    picture = Image.new("RGB", (width, height), tuple(tones[0]))
    brush = ImageDraw.Draw(picture)
    for tone in tones[1 : int(rng.integers(2, 5))]:
        x, y = int(rng.uniform(0, 0.7) * width), int(rng.uniform(0, 0.7) * height)
        end = (x + int(rng.uniform(0.1, 0.6) * width), y + int(rng.uniform(0.1, 0.6) * height))
        shape = brush.ellipse if rng.random() < 0.5 else brush.rectangle
        shape((x, y, *end), fill=tuple(tone))
    return picture


def framed(picture: Image.Image, rng: np.random.Generator) -> tuple[Image.Image, float]:
    """With bars above and below, bars at the sides, a frame, or as an instant photo; and the share that is border."""
    width, height = picture.size
    thin = rng.uniform(0.04, 0.3)
    kind = int(rng.integers(4))
    across, down = round(thin * width), round(thin * height)
    if kind == 3:  # an instant photo: a third edge that is wider, with or without handwriting
        across = down = max(2, round(0.07 * min(width, height)))
    left, top = (0, down) if kind == 0 else (across, 0) if kind == 1 else (across, down)
    right, bottom = left, 3 * top if kind == 3 else top
    tone = _tone(rng)
    whole = Image.new("RGB", (width + left + right, height + top + bottom), tone)
    whole.paste(picture, (left, top))
    if kind == 3 and rng.random() < 0.5:
        words = phrase(rng, 1)
        place = (left + width // 4, top + height + top // 2)
        ImageDraw.Draw(whole).text(place, words, fill=tuple(255 - t for t in tone), font=any_face(rng, max(9, 2 * top)))
    return whole, 1 - width * height / (whole.width * whole.height)


def _tone(rng: np.random.Generator) -> tuple[int, int, int]:
    pick = rng.random()
    if pick < 0.4:
        return (0, 0, 0)
    if pick < 0.8:
        return (255, 255, 255)
    red, green, blue = rng.integers(0, 256, 3).tolist()
    return red, green, blue


def _scale(picture: Image.Image) -> float:
    return float((picture.width * picture.height) ** 0.5 / 224)


def _picture(pixels: Floats) -> Image.Image:
    return Image.fromarray(np.clip(pixels + 0.5, 0, 255).astype(np.uint8))

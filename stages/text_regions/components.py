"""Blobs that may be letters: adaptive binarisation in both polarities, then shape filters on connected components."""

from collections.abc import Iterator
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

Grey = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]

RADII_PX = (7, 20)
"""Half sides of the squares whose mean is the ground: for strokes of up to about 5 and 15 px."""
CONTRAST = 14
"""Grey levels between a stroke and its ground, at least."""
LEAST_AREA_PX, LEAST_HEIGHT_PX = 6, 5


@dataclass(frozen=True)
class Components:
    """Blobs of one binarisation as columns of length n; edges in px, `right` and `bottom` exclusive."""

    left: Floats
    top: Floats
    right: Floats
    bottom: Floats
    area: Floats
    outline: Floats
    """Pixel sides that face the ground."""
    grey: Floats
    """Mean grey level."""
    unevenness: Floats
    """Standard deviation of the grey levels: ink is even."""
    step: Floats
    """Mean gradient along the outline, in grey levels a px: letters have crisp edges."""

    @property
    def height(self) -> Floats:
        """Of the bounding box, px."""
        return self.bottom - self.top

    @property
    def width(self) -> Floats:
        """Of the bounding box, px."""
        return self.right - self.left

    @property
    def stroke(self) -> Floats:
        """Mean stroke width, px: a long stroke has two sides."""
        return 2 * self.area / self.outline

    @property
    def fill(self) -> Floats:
        """Share of the bounding box that is stroke, in (0, 1]."""
        return self.area / (self.height * self.width)

    def __len__(self) -> int:
        return len(self.area)

    def take(self, chosen: npt.NDArray[np.generic]) -> "Components":
        """Those at some places, or where a mask is true."""
        return Components(*(getattr(self, field.name)[chosen] for field in fields(self)))


def letter_like(grey: Grey) -> Iterator[Components]:
    """Components of letter shape in (h, w) grey levels, once per radius and polarity; none without two of them."""
    from PIL import Image, ImageFilter

    levels, slope = grey.astype(np.int16), _slope(grey)
    picture = Image.fromarray(grey)
    for radius in RADII_PX:
        ground = np.asarray(picture.filter(ImageFilter.BoxBlur(radius)), np.int16)
        for stroke in (levels < ground - CONTRAST, levels > ground + CONTRAST):
            found = _measure(stroke, grey, slope)
            found = found.take(_has_letter_shape(found, grey.shape[0]))
            if len(found) > 1:
                yield found


def _slope(grey: Grey) -> Floats:
    """(h, w) gradient in grey levels a px, by central differences; 0 at the rim."""
    levels = np.pad(grey, 1, mode="edge").astype(np.float64)
    across, down = levels[1:-1, 2:] - levels[1:-1, :-2], levels[2:, 1:-1] - levels[:-2, 1:-1]
    return np.asarray(np.hypot(across, down) / 2, np.float64)


def _measure(stroke: Mask, grey: Grey, slope: Floats) -> Components:
    """All components (4 neighbours) of a mask (h, w) that are no specks."""
    from scipy import ndimage

    labels, count = ndimage.label(stroke)
    at = np.flatnonzero(stroke)
    label = labels.ravel()[at]
    facing = _open_sides(stroke).ravel()[at]

    def total(values: npt.NDArray[np.generic]) -> Floats:
        return np.asarray(np.bincount(label, values, count + 1), np.float64)

    area = np.bincount(label, minlength=count + 1).astype(np.float64)
    level = grey.ravel()[at].astype(np.float64)
    sums = total(facing), total(level), total(level * level), total(slope.ravel()[at] * (facing > 0)), total(facing > 0)
    large = np.flatnonzero(area >= LEAST_AREA_PX)
    boxes = ndimage.find_objects(labels)
    edges = [(boxes[k - 1][1].start, boxes[k - 1][0].start, boxes[k - 1][1].stop, boxes[k - 1][0].stop) for k in large]
    left, top, right, bottom = np.array(edges, np.float64).reshape(-1, 4).T
    size = area[large]
    outline, ink, squares, crisp, rim = (values[large] for values in sums)
    uneven = np.sqrt(np.maximum(squares / size - (ink / size) ** 2, 0))
    return Components(left, top, right, bottom, size, outline, ink / size, uneven, crisp / np.maximum(rim, 1))


def _open_sides(stroke: Mask) -> npt.NDArray[np.uint8]:
    """(h, w): how many of a stroke pixel's four sides face the ground or the image's edge; 0 elsewhere."""
    inside = np.pad(stroke, 1).view(np.uint8)
    covered = inside[:-2, 1:-1] + inside[2:, 1:-1] + inside[1:-1, :-2] + inside[1:-1, 2:]
    return np.asarray(np.where(stroke, 4 - covered, 0), np.uint8)


def _has_letter_shape(found: Components, image_height: int) -> Mask:
    """Neither specks nor scenery: bounded in size and aspect (letters that touch make one wide blob), not solid."""
    height, width = found.height, found.width
    sized = (height >= LEAST_HEIGHT_PX) & (height <= 0.5 * image_height) & (width <= 8 * height)
    slim = (width <= 0.45 * height) & (height <= 12 * width)
    drawn = (found.fill > 0.12) & (slim | (found.fill < 0.97)) & (found.stroke < 0.5 * height)
    return np.asarray(sized & drawn & (height <= 12 * width), np.bool_)

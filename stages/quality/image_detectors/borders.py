"""Uniform borders: bars above and below, bars at the sides, frames, instant photos.

A border is a run of rows (or columns) of one tone from an edge inward that ends in a straight step: what lies behind it
differs from its tone along most of the length. That tells a frame from the background of a product photo, where the
first row that differs does so at the tip of the product only.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from stages.quality.image_detectors.analysis import Grey

TOLERANCE = 12
"""Grey levels that a border may stray from its median: JPEG rings beside a hard edge."""
STRAY_SHARE = 0.02
"""Share of a border's row that may stray farther."""
BLEND_PX = 3
"""Rows behind the border within which the picture has to begin: scaling blends the two."""
STEP_SHARE = 0.8
"""Share of the length along which the picture has to differ from it: round things do on less, night scenes on more."""
LEAST_PX = 2
"""A thinner line is not looked at as a border."""

Depths = tuple[int, int, int, int]


@dataclass(frozen=True)
class Frame:
    """The part of a picture inside its borders, in px; `bottom` and `right` exclusive."""

    top: int
    bottom: int
    left: int
    right: int


def picture_inside(grey: Grey) -> Frame:
    """What (h, w) grey levels show inside their borders; all of it where there are none."""
    above, below = _ends(grey)
    depths = (above, below, *_ends(grey[above : len(grey) - below].T))
    for _ in range(2):  # a side without a step gives its depth back, which lengthens the others
        depths = _straight(grey, depths)
    above, below, before, behind = depths
    return Frame(above, grey.shape[0] - below, before, grey.shape[1] - behind)


def border_share(grey: Grey) -> float:
    """Share of the area of (h, w) grey levels that is border; in [0, 1), 0 for a picture of one colour."""
    frame = picture_inside(grey)
    return 1 - (frame.bottom - frame.top) * (frame.right - frame.left) / grey.size


def _ends(grey: Grey) -> tuple[int, int]:
    """Rows of one tone at the top and at the bottom; (0, 0) where they meet, as in a slope of tones."""
    first, last = _depth(grey), _depth(grey[::-1])
    return (first, last) if first + last < len(grey) else (0, 0)


def _depth(grey: Grey) -> int:
    """Rows of (h, w) from the first one on that are of its tone; 0 if all are, or fewer than `LEAST_PX`."""
    busy = np.flatnonzero(_strays(grey, grey[:1]).mean(axis=1) > STRAY_SHARE)
    return int(busy[0]) if len(busy) and busy[0] >= LEAST_PX else 0


def _straight(grey: Grey, depths: Depths) -> Depths:
    """The depths above, below, before and behind; 0 where the picture does not begin along most of the side at once."""
    above, below, before, behind = depths
    across = grey[:, before : grey.shape[1] - behind]
    along = grey[above : len(grey) - below].T
    sides = ((across, above), (across[::-1], below), (along, before), (along[::-1], behind))
    kept = [depth if depth and _step_share(side, depth) >= STEP_SHARE else 0 for side, depth in sides]
    return kept[0], kept[1], kept[2], kept[3]


def _step_share(grey: Grey, depth: int) -> float:
    """Share of the columns of (h, w) that leave the border's tone within `BLEND_PX` rows behind it."""
    return float(_strays(grey[depth : depth + BLEND_PX], grey[:depth]).any(axis=0).mean())


def _strays(grey: Grey, border: Grey) -> npt.NDArray[np.bool_]:
    """(h, w): which pixels are not of the border's tone."""
    return np.asarray(np.abs(grey.astype(np.int16) - int(np.median(border))) > TOLERANCE)

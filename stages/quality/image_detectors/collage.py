"""Collages: straight seams from one side of the picture to the other, with a gutter or without.

At a seam the strongest step of nearly every row lies in the very same column, whatever the contrast is there; the edges
of things wander by a pixel, and end. Borders are cut off first, since they end in such a step too; and what lies on
both sides has to be a picture: one tone that fills most of it makes it a panel, or a product before its background.
"""

import numpy as np
import numpy.typing as npt

from stages.quality.image_detectors.analysis import Grey
from stages.quality.image_detectors.borders import picture_inside
from stages.quality.image_detectors.constant_share import largest_tone

REACH_PX = 3
"""The step at a seam is compared with those this far to its left and right."""
LEAST_STEP = 6
"""Grey levels; a smaller step is none."""
MARGIN = 0.08
"""Share of the side, at both ends, in which no seam is looked for."""
MOST_OF_ONE_TONE = 0.55
LEAST_SIDE_PX = 48
CANDIDATES = 8
"""Columns, and rows, of which both sides are looked at: the best ones."""


def collage_likeness(grey: Grey) -> float:
    """The larger share of a side along which one straight seam between pictures runs in (h, w) grey levels; in [0, 1].

    0 where what is inside the borders is under `LEAST_SIDE_PX` a side.
    """
    frame = picture_inside(grey)
    inner = grey[frame.top : frame.bottom, frame.left : frame.right]
    if min(inner.shape) < LEAST_SIDE_PX:
        return 0.0
    return max(_best_seam(inner), _best_seam(inner.T))


def seams(grey: Grey) -> npt.NDArray[np.float64]:
    """(w - 1,) share of the rows of (h, w) grey levels whose strongest step nearby lies between columns x and x + 1.

    0 within `MARGIN` of both ends.
    """
    from scipy.ndimage import maximum_filter1d

    step = np.abs(np.diff(grey.astype(np.int16), axis=1)).astype(np.uint8)
    strongest = (step == maximum_filter1d(step, 2 * REACH_PX + 1, axis=1)) & (step > LEAST_STEP)
    found = strongest.mean(axis=0)
    margin = int(MARGIN * len(found)) + 1
    found[:margin] = found[-margin:] = 0
    return np.asarray(found)


def _best_seam(grey: Grey) -> float:
    found = seams(grey)
    for at in np.argsort(-found, kind="stable")[:CANDIDATES].tolist():
        sides = grey[:, : at + 1], grey[:, at + 1 :]
        if max(largest_tone(side) for side in sides) <= MOST_OF_ONE_TONE:
            return float(found[at])
    return 0.0

"""Text as pixels (a mask) and as boxes, from rows of letter-like blobs that a small scorer takes for text."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from stages.text_regions.chains import Chains, chains, features, row_starts
from stages.text_regions.components import Floats, Grey, Mask, letter_like
from stages.text_regions.row_scorer import text_likeness

MOST_PIXELS = 1 << 18
"""A larger image is reduced to this many first (512 x 512): what is done is bounded, and small print is lost."""
SURE, POSSIBLE = 0.6, 0.3
"""Likeness from which a row is text; and from which it is where it touches one that is."""
LEAST_SIDE_PX = 8
"""Nothing of `LEAST_HEIGHT_PX` with ground around it fits into less."""

Boxes = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Row:
    """One row of letters; `boxes` (n, 4) of its letters: left, top, right, bottom in px, the latter two exclusive."""

    likeness: float
    boxes: Floats


def text_mask(grey: Grey, sure: float = SURE) -> Mask:
    """(h, w) bool: the pixels of rows of text in (h, w) grey levels: letters, what is between them, a thin rim.

    Found are rows of two and more letters of 5 px and more (at `MOST_PIXELS`), up to some 20 degrees off the level. A
    row that is not level is covered letter by letter, so that its bounding box does not take half the image.
    """
    from PIL import Image

    small = reduced(grey)
    mask = _covered(text_rows(small), small.shape, sure)
    if mask.shape == grey.shape:
        return mask
    return np.asarray(Image.fromarray(mask).resize((grey.shape[1], grey.shape[0]), Image.Resampling.NEAREST))


def text_boxes(mask: Mask) -> Boxes:
    """(n, 4) left, top, right, bottom in px, the latter two exclusive, of the separate regions of a `text_mask`."""
    from scipy import ndimage

    found = ndimage.find_objects(ndimage.label(mask)[0])
    edges = [(place[1].start, place[0].start, place[1].stop, place[0].stop) for place in found]
    return np.array(edges, np.int64).reshape(-1, 4)


def text_rows(grey: Grey) -> list[Row]:
    """Every row of two and more letter-like blobs in (h, w) grey levels, text or not.

    The same row may be found in several binarisations.
    """
    if min(grey.shape) < LEAST_SIDE_PX:
        return []
    return [row for found in letter_like(grey) for row in _scored(chains(found))]


def reduced(grey: Grey) -> Grey:
    """(h, w) of at most `MOST_PIXELS`, its proportions kept as far as whole pixels can; a smaller one as it is."""
    from PIL import Image

    if grey.size <= MOST_PIXELS:
        return grey
    scale = (MOST_PIXELS / grey.size) ** 0.5
    height, width = (max(1, int(side * scale)) for side in grey.shape)
    return np.asarray(Image.fromarray(grey).resize((width, height), Image.Resampling.HAMMING))


def _scored(found: Chains) -> list[Row]:
    if not len(found.row):
        return []
    letters = found.letters
    boxes = np.column_stack([letters.left, letters.top, letters.right, letters.bottom])
    parts = np.split(boxes, row_starts(found.row)[1:])
    return [Row(each, part) for each, part in zip(text_likeness(features(found)).tolist(), parts, strict=True)]


def _covered(rows: list[Row], shape: tuple[int, ...], sure: float) -> Mask:
    """Where rows are possible and touch one that is sure."""
    from scipy import ndimage

    seeds, mask = np.zeros(shape, np.bool_), np.zeros(shape, np.bool_)
    for row in rows:
        if row.likeness >= min(sure, POSSIBLE):
            cover(mask, row.boxes)
        if row.likeness >= sure:
            cover(seeds, row.boxes)
    if not seeds.any():
        return seeds
    labels, count = ndimage.label(mask)
    kept = np.zeros(count + 1, np.bool_)
    kept[labels[seeds]] = True
    return np.asarray(kept[labels], np.bool_)


def cover(mask: Mask, boxes: Floats) -> None:
    """Set, for each letter and the next one, the box around both with a rim of a seventh of the row's height."""
    rim = np.ceil((boxes[:, 3] - boxes[:, 1]).mean() / 7)
    start = np.minimum(boxes[:-1, :2], boxes[1:, :2]) - rim
    stop = np.maximum(boxes[:-1, 2:], boxes[1:, 2:]) + rim
    for left, top, right, bottom in np.column_stack([start, stop]).clip(0).astype(np.int64).tolist():
        mask[top:bottom, left:right] = True

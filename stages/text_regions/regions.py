"""Text as rows (boxes) and as pixels (a mask), from rows of letter-like blobs that a small scorer takes for text."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from stages.text_regions.chains import Chains, Labels, chains, features, row_starts
from stages.text_regions.components import Floats, Grey, Mask, letter_like
from stages.text_regions.row_scorer import text_likeness

MOST_PIXELS = 1 << 18
"""A larger image is reduced to this many first (512 x 512): what is done is bounded, and small print is lost."""
THRESHOLD = 0.7
"""Likeness from which a row counts as text; chosen in `bench/detectors.py`, where its precision and recall stand."""
LEAST_SIDE_PX = 8
"""Nothing of `LEAST_HEIGHT_PX` with ground around it fits into less."""

Boxes = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Row:
    """One row of letters in the reduced image; `boxes` (n, 4) of its letters: left, top, right, bottom in px."""

    likeness: float
    boxes: Floats


def text_rows(grey: Grey) -> list[Row]:
    """Every row of two and more letter-like blobs in (h, w) grey levels of at most `MOST_PIXELS`, text or not.

    The same row may be found in several binarisations. Rows run left to right, up to some 25 degrees off the level.
    """
    if min(grey.shape) < LEAST_SIDE_PX:
        return []
    return [row for found in letter_like(grey) for row in _scored(chains(found))]


def text_boxes(grey: Grey, threshold: float = THRESHOLD) -> Boxes:
    """(n, 4) left, top, right, bottom in px of the rows of text in (h, w) grey levels; the latter two exclusive."""
    small = _reduced(grey)
    found = [row.boxes for row in text_rows(small) if row.likeness >= threshold]
    hulls = np.array([[*box[:, :2].min(axis=0), *box[:, 2:].max(axis=0)] for box in found]).reshape(-1, 4)
    scale = np.array([grey.shape[1] / small.shape[1], grey.shape[0] / small.shape[0]] * 2)
    edges = np.concatenate([np.floor(hulls[:, :2] * scale[:2]), np.ceil(hulls[:, 2:] * scale[2:])], axis=1)
    return np.unique(edges.astype(np.int64), axis=0)


def text_mask(grey: Grey, threshold: float = THRESHOLD) -> Mask:
    """(h, w) bool: the pixels of text rows in (h, w) grey levels: letters, what is between them, a thin rim.

    A row that is not level is covered letter by letter, so that its bounding box does not take half the image.
    """
    from PIL import Image

    small = _reduced(grey)
    mask = np.zeros(small.shape, np.bool_)
    for row in text_rows(small):
        if row.likeness >= threshold:
            _cover(mask, row.boxes)
    if mask.shape == grey.shape:
        return mask
    return np.asarray(Image.fromarray(mask).resize((grey.shape[1], grey.shape[0]), Image.Resampling.NEAREST))


def _reduced(grey: Grey) -> Grey:
    from PIL import Image

    if grey.size <= MOST_PIXELS:
        return grey
    scale = (MOST_PIXELS / grey.size) ** 0.5
    height, width = (max(1, int(side * scale)) for side in grey.shape)
    return np.asarray(Image.fromarray(grey).resize((width, height), Image.Resampling.BOX))


def _scored(found: Chains) -> list[Row]:
    if not len(found.row):
        return []
    letters = found.letters
    boxes = np.column_stack([letters.left, letters.top, letters.right, letters.bottom])
    likeness = text_likeness(features(found)).tolist()
    return [Row(each, part) for each, part in zip(likeness, _split(boxes, found.row), strict=True)]


def _split(boxes: Floats, row: Labels) -> list[Floats]:
    return np.split(boxes, row_starts(row)[1:])


def _cover(mask: Mask, boxes: Floats) -> None:
    """Set, for each letter and the next one, the box around both with a rim of a seventh of the row's height."""
    rim = np.ceil((boxes[:, 3] - boxes[:, 1]).mean() / 7)
    both = np.concatenate(
        [np.minimum(boxes[:-1, :2], boxes[1:, :2]), np.maximum(boxes[:-1, 2:], boxes[1:, 2:])], axis=1
    )
    for left, top, right, bottom in (both + [-rim, -rim, rim, rim]).clip(0).astype(np.int64).tolist():
        mask[top:bottom, left:right] = True

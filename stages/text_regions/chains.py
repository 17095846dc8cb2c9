"""Rows of letters: neighbours of one height and stroke on one line, and how much a row looks like text."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from stages.text_regions.components import Components, Floats

NEIGHBOURS = 8
"""Nearest blobs that one is compared with: bounds the work on a picture full of blobs."""

FEATURES = (
    *("letters", "height", "length", "step", "unevenness", "unevenness_to_step", "stroke", "outline", "aspect", "fill"),
    *("heights", "widths", "greys", "off_line"),
)

Labels = npt.NDArray[np.intp]
Mean = Callable[[Floats], Floats]


@dataclass(frozen=True)
class Chains:
    """The rows of one binarisation: letters from left to right, row after row."""

    letters: Components
    """Those that belong to a row of two or more, ordered by (row, left)."""
    row: Labels
    """(n,) the row of each letter, 0, 1, 2, ..."""


def chains(found: Components) -> Chains:
    """Join letter-like neighbours into rows."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    one, other = _joined(found)
    links = coo_matrix((np.ones(len(one)), (one, other)), (len(found), len(found)))
    row = connected_components(links, directed=False)[1]
    several = np.bincount(row)[row] > 1
    kept = np.flatnonzero(several)
    kept = kept[np.lexsort((found.top[kept], found.left[kept], row[kept]))]
    return Chains(found.take(kept), np.unique(row[kept], return_inverse=True)[1])


def _joined(found: Components) -> tuple[Labels, Labels]:
    """Pairs of places: side by side, on a line, alike in height, stroke and grey."""
    from scipy.spatial import cKDTree

    middle = np.column_stack([(found.left + found.right) / 2, (found.top + found.bottom) / 2])
    count = min(NEIGHBOURS, len(found) - 1)
    nearest = cKDTree(middle).query(middle, count + 1)[1]
    one, other = np.repeat(np.arange(len(found)), count + 1), nearest.ravel()
    height, stroke = found.height, found.stroke
    tall, small = np.maximum(height[one], height[other]), np.minimum(height[one], height[other])
    gap = np.maximum(found.left[one], found.left[other]) - np.minimum(found.right[one], found.right[other])
    offset = np.abs(middle[one, 1] - middle[other, 1])
    offset = np.minimum(offset, np.abs(found.bottom[one] - found.bottom[other]))
    thick, thin = np.maximum(stroke[one], stroke[other]), np.minimum(stroke[one], stroke[other])
    alike = (tall < 2 * small) & (thick < 2 * thin) & (np.abs(found.grey[one] - found.grey[other]) < 40)
    joined = alike & (gap < tall) & (gap > -0.3 * small) & (offset < 0.35 * tall) & (one != other)
    return one[joined], other[joined]


def row_starts(row: Labels) -> Labels:
    """Where each row begins among its letters."""
    return np.flatnonzero(np.diff(row, prepend=-1))


def features(rows: Chains) -> Floats:
    """(rows, 14) what tells a row of letters from a row of leaves, in the order of `FEATURES`."""
    letters, row = rows.letters, rows.row
    count = np.bincount(row).astype(np.float64)

    def mean(values: Floats) -> Floats:
        return np.asarray(np.bincount(row, values) / count)

    def spread(values: Floats) -> Floats:
        return np.sqrt(np.maximum(mean(values * values) - mean(values) ** 2, 0))

    starts = row_starts(row)
    length = np.maximum.reduceat(letters.right, starts) - letters.left[starts]
    height, step, uneven = mean(letters.height), mean(letters.step), mean(letters.unevenness)
    x = (letters.left + letters.right) / 2
    lines = [_off_line(x, y, row, mean) for y in (letters.bottom, letters.top, (letters.top + letters.bottom) / 2)]
    found = {
        "letters": np.log(count),
        "height": np.log(height),
        "length": np.log(length / height),
        "step": np.log(step + 1),
        "unevenness": np.log(uneven + 1),
        "unevenness_to_step": np.log(uneven / (step + 1) + 0.05),
        "stroke": np.log(mean(letters.stroke) / height),
        "outline": np.log(mean(letters.outline / letters.height)),
        "aspect": np.log(mean(letters.width / letters.height) + 0.05),
        "fill": mean(letters.fill),
        "heights": spread(letters.height) / height,
        "widths": spread(letters.width) / height,
        "greys": spread(letters.grey),
        "off_line": np.log(np.minimum.reduce(lines) / height + 0.02),
    }
    return np.column_stack([found[name] for name in FEATURES])


def _off_line(x: Floats, y: Floats, row: Labels, mean: Mean) -> Floats:
    """(rows,) root mean square distance of y from each row's least-squares line over x."""
    dx, dy = x - mean(x)[row], y - mean(y)[row]
    slope = mean(dx * dy) / np.maximum(mean(dx * dx), 1e-9)
    return np.sqrt(mean((dy - slope[row] * dx) ** 2))

"""Points far from each other out of many: greedy farthest-point choice, then exchanges of the closest pair.

The greedy choice reaches at least half the best possible smallest distance (Gonzalez, 1985).
"""

import numpy as np
import numpy.typing as npt

from stages.mixture.designs.region import Doubles

Integers = npt.NDArray[np.int64]


def farthest(points: Doubles, count: int, first: int) -> Integers:
    """(count,) row numbers: `first`, then always the row farthest from those taken; ties go to the earlier row.

    Args:
        points: (n, S), distinct, n >= count.
        count: how many.
        first: row number of the first.
    """
    chosen = [first]
    near = _distances(points, points[first])
    while len(chosen) < count:
        chosen.append(int(np.argmax(np.round(near, 12))))  # equal up to the last bits is equal
        near = np.minimum(near, _distances(points, points[chosen[-1]]))
    return np.array(chosen)


def exchanged(points: Doubles, chosen: Integers, fixed: int) -> Integers:
    """Replace one of the closest pair by the row farthest from the others, as long as the smallest distance grows.

    Args:
        points: (n, S).
        chosen: row numbers.
        fixed: how many of them, from the front, stay.
    """
    chosen = chosen.copy()
    between = np.array([_distances(points, points[row]) for row in chosen])
    while True:
        inner = between[:, chosen] + np.diag(np.full(len(chosen), np.inf))
        closest, pair = inner.min(), divmod(int(inner.argmin()), len(chosen))
        better = [(*_best(between, place), place) for place in pair if place >= fixed]
        reach, row, place = max(better, default=(0.0, 0, 0))
        if reach <= closest + 1e-12:
            return chosen
        chosen[place] = row
        between[place] = _distances(points, points[row])


def smallest_distance(points: Doubles) -> float:
    """Of any two rows, Euclidean."""
    between = np.array([_distances(points, point) for point in points])
    return float((between + np.diag(np.full(len(points), np.inf))).min())


def _best(between: Doubles, place: int) -> tuple[float, int]:
    """The row farthest from all chosen ones but that at `place`, and how far it is."""
    near = np.delete(between, place, axis=0).min(axis=0)
    return float(near.max()), int(near.argmax())


def _distances(points: Doubles, point: Doubles) -> Doubles:
    found: Doubles = np.sqrt(((points - point) ** 2).sum(axis=1))
    return found

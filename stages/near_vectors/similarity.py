"""Which rows of one set that stands in order are close, by exact cosines; see `stages/vectors.py`."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from stages.vectors import Doubles, Vectors, blocks, cosines

Places = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

BLOCK_ROWS = 1024


@dataclass(frozen=True)
class Rows:
    """n rows in the order in which they go before each other."""

    embeddings: Vectors
    guests: Flags | None = None
    """(n,) rows that are compared with the others and not among themselves."""
    second: Vectors | None = None
    """(n, d') what has a veto: rows whose cosine by these is not above `above` are not compared; zeros: never."""
    above: float = 0.0

    def compared(self) -> Iterator[tuple[slice, slice, Doubles]]:
        """Blocks (later, earlier, cosines) of all pairs; -inf where they are not compared or stand in another order."""
        for later in blocks(len(self.embeddings), BLOCK_ROWS):
            for earlier in blocks(later.stop, BLOCK_ROWS):
                found = cosines(self.embeddings[later], self.embeddings[earlier])
                rows, columns = np.ogrid[later, earlier]
                found[columns >= rows] = -np.inf
                if self.guests is not None:
                    found[self.guests[later, None] & self.guests[None, earlier]] = -np.inf
                if self.second is not None:
                    found[~(cosines(self.second[later], self.second[earlier]) > self.above)] = -np.inf
                yield later, earlier, found


def largest_earlier(rows: Rows) -> tuple[Doubles, Places]:
    """M_j = max over compared i < j of cos(i, j), and the first i that reaches it; -inf and -1 where there is none.

    O(n^2 d) time, O(n) memory beside two blocks.
    """
    largest = np.full(len(rows.embeddings), -np.inf)
    partner = np.full(len(rows.embeddings), -1, np.int64)
    for later, earlier, found in rows.compared():
        best = found.argmax(axis=1)
        values = np.take_along_axis(found, best[:, None], axis=1)[:, 0]
        better = values > largest[later]
        largest[later][better] = values[better]
        partner[later][better] = best[better] + earlier.start
    return largest, partner


def above(rows: Rows, threshold: float) -> tuple[Places, Places, Doubles]:
    """Every compared pair (first, second) with a cosine above the threshold, and that cosine."""
    nothing = np.zeros(0, np.int64)
    firsts, seconds, values = [nothing], [nothing], [np.zeros(0)]
    for later, earlier, found in rows.compared():
        second, first = np.nonzero(found > threshold)
        firsts.append(first + earlier.start)
        seconds.append(second + later.start)
        values.append(found[second, first])
    return np.concatenate(firsts), np.concatenate(seconds), np.concatenate(values)

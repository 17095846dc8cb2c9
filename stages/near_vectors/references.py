"""For each of many embeddings the closest of a set of references."""

import numpy as np

from stages.clusters import Places, rounding_error, unit_singles
from stages.vectors import Doubles, Vectors, blocks, pair_cosines

ROWS_AT_ONCE, REFERENCES_AT_ONCE = 1024, 8192


def closest_references(rows: Vectors, references: Vectors, above: float) -> tuple[Places, Doubles]:
    """(n,) for each row the reference (m, d) of the largest cosine above `above`, the first of equals, else -1.

    Also (n,) that cosine, -inf where there is none. float32 says which pairs may be it, exact cosines decide. Equal
    references, of which each would be exactly compared with every row that is close to one, are compared once.
    """
    distinct = _first_of_equals(references)
    place, best = np.full(len(rows), -1, np.int64), np.full(len(rows), -np.inf)
    error = rounding_error(rows.shape[1])
    for numbers in blocks(len(distinct), REFERENCES_AT_ONCE):
        places = distinct[numbers]
        some = references[places]
        singles = unit_singles(some)
        for block in blocks(len(rows), ROWS_AT_ONCE):
            found = unit_singles(rows[block]) @ singles.T
            enough = np.maximum(found.max(axis=1) - 2 * error, above - error)
            row, other = np.nonzero(found >= enough[:, None])
            exact = pair_cosines(rows[block][row], some[other])
            order = np.lexsort((other, -exact, row))
            first = order[np.diff(row[order], prepend=-1) != 0]
            own, value = row[first] + block.start, exact[first]
            better = (value > above) & (value > best[own])
            place[own[better]], best[own[better]] = places[other[first][better]], value[better]
    return place, best


def _first_of_equals(references: Vectors) -> Places:
    """The place of each distinct row's first copy, ascending."""
    first: dict[bytes, int] = {}
    for at, row in enumerate(references):
        first.setdefault(row.tobytes(), at)
    return np.fromiter(first.values(), np.int64, len(first))

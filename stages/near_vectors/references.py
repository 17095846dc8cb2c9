"""For each of many embeddings the closest of a set of references."""

import numpy as np

from stages.near_vectors.clusters import rounding_error, unit_singles
from stages.near_vectors.similarity import Doubles, Embeddings, Places, blocks, pair_cosines

REFERENCES_AT_ONCE = 8192


def closest_references(rows: Embeddings, references: Embeddings, above: float) -> tuple[Places, Doubles]:
    """(n,) for each row the reference (m, d) of the largest cosine above `above`, the first of equals, else -1.

    Also (n,) that cosine, -inf where there is none. float32 says which pairs may be it, exact cosines decide.
    """
    place, best = np.full(len(rows), -1, np.int64), np.full(len(rows), -np.inf)
    error = rounding_error(rows.shape[1])
    for begin in range(0, len(references), REFERENCES_AT_ONCE):
        some = references[begin : begin + REFERENCES_AT_ONCE]
        singles = unit_singles(some)
        for block in blocks(len(rows)):
            found = unit_singles(rows[block]) @ singles.T
            enough = np.maximum(found.max(axis=1) - 2 * error, above - error)
            row, other = np.nonzero(found >= enough[:, None])
            exact = pair_cosines(rows[block][row], some[other])
            order = np.lexsort((other, -exact, row))
            first = order[np.diff(row[order], prepend=-1) != 0]
            own, value = row[first] + block.start, exact[first]
            better = (value > above) & (value > best[own])
            place[own[better]], best[own[better]] = other[first][better] + begin, value[better]
    return place, best

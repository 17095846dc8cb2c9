"""For each row the largest cosine with a row before it."""

import numpy as np
import numpy.typing as npt

from stages.vectors import Doubles, Vectors, blocks, cosines

Places = npt.NDArray[np.int64]

BLOCK_ROWS = 1024


def largest_earlier(embeddings: Vectors) -> tuple[Doubles, Places]:
    """M_j = max over i < j of cos(i, j) for (n, d) rows in order, and the first i that reaches it.

    For j = 0 they are -inf and -1. O(n^2 d) time, O(n) memory beside two blocks.
    """
    largest = np.full(len(embeddings), -np.inf)
    partner = np.full(len(embeddings), -1, np.int64)
    for later in blocks(len(embeddings), BLOCK_ROWS):
        for earlier in blocks(later.stop, BLOCK_ROWS):
            found = cosines(embeddings[later], embeddings[earlier])
            rows, columns = np.ogrid[later, earlier]
            found[columns >= rows] = -np.inf
            best = found.argmax(axis=1)
            values = np.take_along_axis(found, best[:, None], axis=1)[:, 0]
            better = values > largest[later]
            largest[later][better] = values[better]
            partner[later][better] = best[better] + earlier.start
    return largest, partner

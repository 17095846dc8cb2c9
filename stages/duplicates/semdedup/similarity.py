"""Cosines of half-precision embeddings, exact, and for each row the largest with a row before it.

A product of two float16 numbers is a multiple of 2^-48, and a sum of them over unit vectors stays below 2: 49 bits, so
float64 holds every partial sum exactly and neither blocks nor threads nor fused multiply-adds can change a bit. Only
the division by the norms rounds, once, by IEEE rules.
"""

import numpy as np
import numpy.typing as npt

Embeddings = npt.NDArray[np.float16]
Doubles = npt.NDArray[np.float64]
Places = npt.NDArray[np.int64]

BLOCK_ROWS = 1024


def norms(embeddings: Embeddings) -> Doubles:
    """(n,) Euclidean lengths of (n, d) embeddings."""
    lengths = np.zeros(len(embeddings))
    for rows in blocks(len(embeddings)):
        lengths[rows] = np.sqrt(np.square(embeddings[rows], dtype=np.float64).sum(axis=1))
    return lengths


def blocks(n: int) -> list[slice]:
    """n rows in slices of at most `BLOCK_ROWS`."""
    return [slice(at, min(at + BLOCK_ROWS, n)) for at in range(0, n, BLOCK_ROWS)]


def cosines(one: Embeddings, other: Embeddings) -> Doubles:
    """(n, m) cosines of (n, d) and (m, d) embeddings, in [-1, 1] but for the last bit."""
    lengths = np.outer(norms(one), norms(other))
    found: Doubles = one.astype(np.float64) @ other.astype(np.float64).T / lengths
    return found


def largest_earlier(embeddings: Embeddings) -> tuple[Doubles, Places]:
    """M_j = max over i < j of cos(i, j) for (n, d) rows in order, and the first i that reaches it.

    For j = 0 they are -inf and -1. O(n^2 d) time, O(n) memory beside two blocks.
    """
    largest = np.full(len(embeddings), -np.inf)
    partner = np.full(len(embeddings), -1, np.int64)
    for later in blocks(len(embeddings)):
        for earlier in blocks(later.stop):
            found = cosines(embeddings[later], embeddings[earlier])
            rows, columns = np.ogrid[later, earlier]
            found[columns >= rows] = -np.inf
            best = found.argmax(axis=1)
            values = np.take_along_axis(found, best[:, None], axis=1)[:, 0]
            better = values > largest[later]
            largest[later][better] = values[better]
            partner[later][better] = best[better] + earlier.start
    return largest, partner

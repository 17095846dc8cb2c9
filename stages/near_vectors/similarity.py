"""Cosines of half-precision embeddings, exact, inside one set of rows that stand in order.

A product of two float16 numbers is a multiple of 2^-48, and a sum of them over unit vectors stays below 2: 49 bits, so
float64 holds every partial sum exactly and neither blocks nor threads nor fused multiply-adds can change a bit. Only
the division by the norms rounds, once, by IEEE rules.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Embeddings = npt.NDArray[np.float16]
Doubles = npt.NDArray[np.float64]
Singles = npt.NDArray[np.float32]
Places = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

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
    """(n, m) cosines of (n, d) and (m, d) embeddings, in [-1, 1] but for the last bit; 0 for rows of zeros."""
    lengths = np.outer(norms(one), norms(other))
    return _divided(one.astype(np.float64) @ other.astype(np.float64).T, lengths)


def pair_cosines(one: Embeddings, other: Embeddings) -> Doubles:
    """(n,) cosines of the rows of two (n, d) matrices: the same bits as in `cosines`."""
    dots = np.multiply(one, other, dtype=np.float64).sum(axis=1)
    return _divided(dots, norms(one) * norms(other))


def cosines_with(rows: Embeddings, others: Embeddings, named: Places) -> Doubles:
    """(n, c) cosines of each row (n, d) with those of the others (m, d) that are named for it (n, c)."""
    dots = np.einsum("nd,ncd->nc", rows.astype(np.float64), others[named].astype(np.float64))
    return _divided(dots, norms(rows)[:, None] * norms(others)[named])


def _divided(dots: Doubles, lengths: Doubles) -> Doubles:
    found: Doubles = np.divide(dots, lengths, out=np.zeros_like(dots), where=lengths > 0)
    return found


@dataclass(frozen=True)
class Rows:
    """n rows in the order in which they go before each other."""

    embeddings: Embeddings
    guests: Flags | None = None
    """(n,) rows that are compared with the others and not among themselves."""
    second: Embeddings | None = None
    """(n, d') what has a veto: rows whose cosine by these is not above `above` are not compared; zeros: never."""
    above: float = 0.0

    def compared(self) -> Iterator[tuple[slice, slice, Doubles]]:
        """Blocks (later, earlier, cosines) of all pairs; -inf where they are not compared or stand in another order."""
        for later in blocks(len(self.embeddings)):
            for earlier in blocks(later.stop):
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

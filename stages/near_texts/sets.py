"""Columns of captions: their normal forms, and the closest of a set of references."""

import numpy as np
import numpy.typing as npt
import polars as pl

from stages.near_texts.bands import buckets
from stages.near_texts.pairs import Hashed, Likely, MinHash, Pairs, joined, pieces, verified
from stages.near_texts.shingles import Flags, Integers
from stages.normal_form import normal_form

BLOCK_ROWS = 1 << 16
"""Captions that are Python objects at a time."""
LONGEST = 1 << 20
"""Of longer captions so many leading characters count."""


def normal_texts(captions: pl.Series) -> pl.Series:
    """(n,) normal forms; "" where there is no caption or nothing in it."""
    parts = [pl.Series([], dtype=pl.String)]
    for at in range(0, len(captions), BLOCK_ROWS):
        block = captions.slice(at, BLOCK_ROWS).to_list()
        parts.append(pl.Series([normal_form((each or "")[:LONGEST]) for each in block], dtype=pl.String))
    return pl.concat(parts).alias("text")


def closest_texts(texts: pl.Series, references: pl.Series, how: MinHash) -> tuple[Integers, npt.NDArray[np.float64]]:
    """(n,) for each normal form the reference with the largest Jaccard index, the first of equals, else -1.

    Also (n,) that index, 0 where there is none. An equal reference is always found, others as `how` finds them.
    """
    both = pl.concat([references, texts])
    is_reference = np.arange(len(both)) < len(references)
    there = (both != "").to_numpy()
    found = _found(both, is_reference & there, ~is_reference & there, how)
    order = np.lexsort((found.first, -found.jaccard, found.second))
    best = order[np.diff(found.second[order], prepend=-1) != 0]
    place, jaccard = np.full(len(texts), -1, np.int64), np.zeros(len(texts))
    own = found.second[best] - len(references)
    place[own], jaccard[own] = found.first[best], found.jaccard[best]
    return place, jaccard


def _found(texts: pl.Series, earlier: Flags, later: Flags, how: MinHash) -> Pairs:
    if texts.is_empty():
        return joined([])
    blocks = (texts.slice(at, BLOCK_ROWS).to_list() for at in range(0, len(texts), BLOCK_ROWS))
    hashed = Hashed.joined([how.hashed(block) for block in blocks])
    likely = Likely([buckets(each) for each in hashed.keys], hashed.bitmaps, how.threshold)
    return joined([verified(piece, how) for piece in pieces(texts, likely, earlier, later)])

"""All pairs of 64-bit hashes within a Hamming distance, by multi-index hashing (Norouzi et al., arXiv:1307.2982).

The 64 bits are cut into max_distance + 2 chunks; two hashes that close agree in at least two of them (pigeonhole), so
only those that share two chunks are compared. Exact, whatever the hashes are.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations, pairwise

import numpy as np
import numpy.typing as npt

from stages.rule import Mapper, in_order

Hashes = npt.NDArray[np.uint64]
Places = npt.NDArray[np.int64]
Distances = npt.NDArray[np.uint8]

BLOCK_PAIRS = 1 << 20
BITS = 64


@dataclass(frozen=True)
class Pairs:
    """Pairs of positions, each once, sorted by (second, first)."""

    first: Places
    second: Places
    """Greater than `first`."""
    distance: Distances


def close_pairs(hashes: Hashes, max_distance: int, mapper: Mapper = in_order) -> Pairs:
    """Every pair of positions whose hashes (n,) differ in at most `max_distance` bits.

    Each pair of chunks is an independent piece of work. Memory is O(n) beside the pairs, however full a bucket is.
    """
    masks = _masks(max_distance)

    def sharing_mask(number: int) -> tuple[Places, Places]:
        return _pairs_of_mask(hashes, masks[: number + 1], max_distance)

    nothing = np.zeros(0, np.int64)
    found = [(nothing, nothing), *mapper(sharing_mask, range(len(masks)))]
    first, second = (np.concatenate([pair[side] for pair in found]) for side in (0, 1))
    order = np.lexsort((first, second))
    first, second = first[order], second[order]
    return Pairs(first, second, np.bitwise_count(hashes[first] ^ hashes[second]))


def close_turned_pairs(hashes: Hashes, max_distance: int, mapper: Mapper = in_order) -> Pairs:
    """Every pair of rows of (n, v) hashes of which one's first hash is close to some hash of the other.

    The first hash is that of the image as it is, the others are of the same image turned; `distance` is the least.
    """
    n, ways = hashes.shape
    found = close_pairs(hashes.ravel(), max_distance, mapper)
    one, other = found.first // ways, found.second // ways
    upright = ((found.first % ways == 0) | (found.second % ways == 0)) & (one != other)
    first, second, distance = one[upright], other[upright], found.distance[upright]
    order = np.lexsort((distance, first, second))
    first, second, distance = first[order], second[order], distance[order]
    new = np.diff(second * n + first, prepend=-1) != 0
    return Pairs(first[new], second[new], distance[new])


def closest(hashes: Hashes, references: Hashes, max_distance: int) -> tuple[Places, Distances]:
    """(n,) for each hash the closest of the references (m,) within `max_distance`, the first of equals, else -1.

    Also (n,) how far that one is; `max_distance` + 1 where there is none.
    """
    distinct, at = np.unique(references, return_index=True)
    place = np.full(len(hashes), len(references), np.int64)
    distance = np.full(len(hashes), max_distance + 1, np.uint8)
    for mask in _masks(max_distance) if len(references) else ():
        for rows, found in _meeting(hashes & mask, distinct & mask):
            apart = np.bitwise_count(hashes[rows] ^ distinct[found])
            nearer = (apart < distance[rows]) | ((apart == distance[rows]) & (at[found] < place[rows]))
            nearer &= apart <= max_distance
            distance[rows[nearer]], place[rows[nearer]] = apart[nearer], at[found[nearer]]
    return np.where(distance <= max_distance, place, -1), distance


def similarity(distance: Distances) -> npt.NDArray[np.float64]:
    """The share of equal bits."""
    return 1 - distance / BITS


def _masks(max_distance: int) -> list[np.uint64]:
    return [one | other for one, other in combinations(_chunks(max_distance + 2), 2)]


def _chunks(number: int) -> list[np.uint64]:
    edges = [BITS * part // number for part in range(number + 1)]
    return [np.uint64((1 << high) - (1 << low)) for low, high in pairwise(edges)]


def _pairs_of_mask(hashes: Hashes, masks: list[np.uint64], max_distance: int) -> tuple[Places, Places]:
    """The close pairs that share the last of these masks and none before it."""
    nothing = np.zeros(0, np.int64)
    firsts, seconds = [nothing], [nothing]
    for one, other in _sharing(hashes & masks[-1]):
        differ = hashes[one] ^ hashes[other]
        close = np.flatnonzero(np.bitwise_count(differ) <= max_distance)
        for earlier in masks[:-1]:
            close = close[(differ[close] & earlier) != 0]
        firsts.append(np.minimum(one[close], other[close]))
        seconds.append(np.maximum(one[close], other[close]))
    return np.concatenate(firsts), np.concatenate(seconds)


def _sharing(keys: Hashes) -> Iterator[tuple[Places, Places]]:
    """Blocks of pairs of positions with equal keys, every such pair once."""
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    left = np.searchsorted(ordered, ordered, side="right") - np.arange(len(keys))  # rows of the bucket from here on
    at, step = np.flatnonzero(left > 1), 1
    while len(at):
        for begin in range(0, len(at), BLOCK_PAIRS):
            block = at[begin : begin + BLOCK_PAIRS]
            yield order[block], order[block + step]
        step += 1
        at = at[left[at] > step]


def _meeting(keys: Hashes, others: Hashes) -> Iterator[tuple[Places, Places]]:
    """Blocks of (position in keys, position in others) with equal keys; no position of keys twice in one block."""
    order = np.argsort(others, kind="stable")
    ordered = others[order]
    begin = np.searchsorted(ordered, keys, side="left")
    count = np.searchsorted(ordered, keys, side="right") - begin
    at, step = np.flatnonzero(count), 0
    while len(at):
        yield at, order[begin[at] + step]
        step += 1
        at = at[count[at] > step]

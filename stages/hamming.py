"""All pairs of 64-bit hashes within a Hamming distance, and which of them to keep."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations, pairwise

import numpy as np
import numpy.typing as npt

Hashes = npt.NDArray[np.uint64]
Places = npt.NDArray[np.int64]

BLOCK_PAIRS = 1 << 20


@dataclass(frozen=True)
class Pairs:
    """Pairs of positions, each once, sorted by (second, first)."""

    first: Places
    second: Places
    """Greater than `first`."""
    distance: npt.NDArray[np.uint8]


def close_pairs(hashes: Hashes, max_distance: int) -> Pairs:
    """Every pair of positions whose hashes (n,) differ in at most `max_distance` bits.

    The 64 bits are cut into max_distance + 2 chunks; two hashes that close agree in at least two of them (pigeonhole),
    so only rows that share two chunks are compared. Exact. Memory is O(n) beside the pairs found, however full a
    bucket is.
    """
    masks = [one | other for one, other in combinations(_chunks(max_distance + 2), 2)]
    nothing = np.zeros(0, np.int64)
    firsts, seconds = [nothing], [nothing]
    for number, mask in enumerate(masks):
        for one, other in _sharing(hashes & mask):
            differ = hashes[one] ^ hashes[other]
            close = np.flatnonzero(np.bitwise_count(differ) <= max_distance)
            for earlier in masks[:number]:  # a pair belongs to the first mask it shares
                close = close[(differ[close] & earlier) != 0]
            firsts.append(np.minimum(one[close], other[close]))
            seconds.append(np.maximum(one[close], other[close]))
    first, second = np.concatenate(firsts), np.concatenate(seconds)
    order = np.lexsort((first, second))
    first, second = first[order], second[order]
    return Pairs(first, second, np.bitwise_count(hashes[first] ^ hashes[second]))


def greedy_partners(n: int, pairs: Pairs) -> Places:
    """(n,) for each position the first kept position close to it and before it, or -1 if it is kept itself.

    One pass in order: a position is dropped only for one that stays, so there are no chains.
    """
    partners = [-1] * n
    for first, second in zip(pairs.first.tolist(), pairs.second.tolist(), strict=True):
        if partners[second] < 0 and partners[first] < 0:
            partners[second] = first
    return np.array(partners, np.int64)


def _chunks(number: int) -> list[np.uint64]:
    edges = [64 * part // number for part in range(number + 1)]
    return [np.uint64((1 << high) - (1 << low)) for low, high in pairwise(edges)]


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

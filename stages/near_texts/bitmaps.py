"""The bitmap filter (Sandes, Teodoro and Melo, 2017, arXiv:1711.07295): pairs that cannot be close, told in few steps.

Each n-gram of a set A sets one of `BITS` bits. A bit that only one of two sets has comes from an n-gram that only this
one has, so no more bits differ than |A - B| + |B - A|; and J >= t means |A - B| + |B - A| <= (1 - t) / (1 + t) x
(|A| + |B|). So nothing is lost that is close, and of real captions that share a band and are not close, 1 to 2 in a
hundred are left to be compared n-gram by n-gram.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from stages.near_texts.shingles import Flags, Hashes, Integers, Shingles

BITS = 512
"""Of a text: 64 bytes, a cache line of most processors."""
BLOCK_TEXTS = 1 << 14
BLOCK_PAIRS = 1 << 14
"""Their bitmaps stay in a processor's cache."""
SLACK = 1e-6
"""In bits: what rounding may do to a bound that is met exactly."""


@dataclass(frozen=True)
class Bitmaps:
    """Of n texts."""

    bits: Hashes
    """(n, `BITS` / 64)"""
    sizes: npt.NDArray[np.int32]
    """(n,) n-grams, repeats included: the bound is a little wider for them."""

    @classmethod
    def of(cls, found: Shingles) -> "Bitmaps":
        """By the bits of hashes that `jaccards` compares, so that n-grams it takes for one are one here."""
        bits = [np.zeros((0, BITS // 64), np.uint64)]
        places = ((found.hashes >> np.uint64(1)) % np.uint64(BITS)).astype(np.int64)
        ends = np.cumsum(found.counts)
        for at in range(0, len(found.counts), BLOCK_TEXTS):
            counts = found.counts[at : at + BLOCK_TEXTS]
            begin, end = ends[at] - counts[0], ends[at + len(counts) - 1]
            flags = np.zeros((len(counts), BITS), np.bool_)
            flags[np.repeat(np.arange(len(counts)), counts), places[begin:end]] = True
            bits.append(np.packbits(flags, axis=1).view(np.uint64))
        return cls(np.concatenate(bits), found.counts.astype(np.int32))

    @classmethod
    def joined(cls, parts: Sequence["Bitmaps"]) -> "Bitmaps":
        """Those of all parts, part after part; at least one."""
        return cls(np.concatenate([part.bits for part in parts]), np.concatenate([part.sizes for part in parts]))

    def at(self, places: Integers) -> "Bitmaps":
        """Those of some texts."""
        return Bitmaps(self.bits.take(places, axis=0), self.sizes.take(places))

    def may_reach(self, threshold: float, first: Integers, second: Integers) -> Flags:
        """(m,) for m pairs of places: False only where their Jaccard index is below the threshold."""
        found = np.empty(len(first), np.bool_)
        bound = (1 - threshold) / (1 + threshold)
        for at in range(0, len(first), BLOCK_PAIRS):
            some = slice(at, at + BLOCK_PAIRS)
            differing = self.bits.take(first[some], axis=0)
            differing ^= self.bits.take(second[some], axis=0)
            number = np.bitwise_count(differing).sum(axis=1, dtype=np.int32)
            sizes = self.sizes.take(first[some]) + self.sizes.take(second[some])
            found[some] = number <= bound * sizes + SLACK
        return found

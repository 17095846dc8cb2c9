"""Which of the texts that are close to each other stay: by witness, or by connected component."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from stages.near_texts import MinHash, jaccards
from stages.near_texts.bands import Buckets, Flags
from stages.near_texts.components import Stars, merged, stars
from stages.near_texts.pairs import Pairs, Piece, joined, pieces, verified
from stages.near_texts.shingles import Integers
from stages.rule import Mapper

FIRST_ROUND = 1 << 8
BLOCK_PAIRS = 1 << 16
Doubles = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Fates:
    """For each text the place of the one it goes for and how similar they are; -1 and 1 for those that stay."""

    partner: Integers
    jaccard: Doubles

    @classmethod
    def all_stay(cls, n: int) -> "Fates":
        """Nobody goes yet."""
        return cls(np.full(n, -1, np.int64), np.ones(n))

    def settle(self, pairs: Pairs) -> None:
        """Let the second of each pair, sorted by (second, first), go for its first."""
        second, at = np.unique(pairs.second, return_index=True)
        self.partner[second], self.jaccard[second] = pairs.first[at], pairs.jaccard[at]


def by_witness(texts: pl.Series, bands: Sequence[Buckets], how: MinHash, mapper: Mapper) -> Fates:
    """A text goes iff a text that stays comes before it and is close; the first such is its partner.

    In rounds of doubling size: what stays of the earlier rounds takes its close texts out of the next one, and only
    what is left is compared with each other. So a crowd of n near copies costs about n comparisons, not n^2 / 2.
    """
    fates = Fates.all_stay(len(texts))

    def compare(earlier: Flags, later: Flags) -> Pairs:
        return joined(mapper(lambda piece: verified(piece, how), pieces(texts, bands, earlier, later)))

    for begin, end in _rounds(len(texts)):
        stay = fates.partner < 0
        now = np.zeros(len(texts), np.bool_)
        now[begin:end] = True
        if begin:
            before = stay.copy()
            before[begin:] = False
            fates.settle(compare(before, now))
        left = now & (fates.partner < 0)
        fates.settle(_greedy(compare(left, left)))
    return fates


def by_component(texts: pl.Series, bands: Sequence[Buckets], how: MinHash, mapper: Mapper) -> Fates:
    """A text goes iff a chain of close pairs joins it to an earlier text; its partner is the chain's first.

    The two may be less similar than the threshold. A crowd of n near copies costs up to n^2 / 2 comparisons.
    """

    def star(piece: Piece) -> Stars:
        found = verified(piece, how)
        return stars(found.first, found.second)

    everywhere = np.ones(len(texts), np.bool_)
    second, first = merged(mapper(star, pieces(texts, bands, everywhere, everywhere)))
    second, first = second[second != first], first[second != first]
    fates = Fates.all_stay(len(texts))
    fates.settle(Pairs(first, second, _similarities(texts, first, second, how, mapper)))
    return fates


def _similarities(texts: pl.Series, first: Integers, second: Integers, how: MinHash, mapper: Mapper) -> Doubles:
    def cut() -> Iterator[Piece]:
        for at in range(0, len(first), BLOCK_PAIRS):
            one, other = first[at : at + BLOCK_PAIRS], second[at : at + BLOCK_PAIRS]
            used, local = np.unique(np.concatenate([one, other]), return_inverse=True)
            yield Piece(texts.gather(used).to_list(), used, local[: len(one)], local[len(one) :])

    found = mapper(lambda piece: jaccards(piece.texts, piece.first, piece.second, how.cut), cut())
    return np.concatenate([np.zeros(0), *found])


def _rounds(n: int) -> Iterator[tuple[int, int]]:
    begin, end = 0, FIRST_ROUND
    while begin < n:
        yield begin, min(end, n)
        begin, end = end, 2 * end


def _greedy(pairs: Pairs) -> Pairs:
    """Of the pairs those in which the first stays and the second goes for it."""
    gone: set[int] = set()
    chosen = []
    for at, (first, second) in enumerate(zip(pairs.first.tolist(), pairs.second.tolist(), strict=True)):
        if first not in gone and second not in gone:
            gone.add(second)
            chosen.append(at)
    return Pairs(pairs.first[chosen], pairs.second[chosen], pairs.jaccard[chosen])

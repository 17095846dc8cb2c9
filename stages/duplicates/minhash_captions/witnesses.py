"""Which of the texts that are close to each other stay: by witness, or by connected component."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from stages.near_texts import MinHash, jaccards
from stages.near_texts.bands import load
from stages.near_texts.components import Stars, merged, stars
from stages.near_texts.pairs import Likely, Pairs, Piece, joined, pieces, verified
from stages.near_texts.shingles import Flags, Integers
from stages.rule import Mapper

AT_ONCE, PER_TEXT = 1 << 18, 32
"""Candidates, as `load` counts them, among texts that are compared before any is known to go: so many, or per text."""
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


def by_witness(texts: pl.Series, likely: Likely, how: MinHash, mapper: Mapper) -> Fates:
    """A text goes iff a text that stays comes before it and is close; the first such is its partner.

    By halves, while there is much to compare: what stays of the first half takes its close texts out of the second, and
    only what is left there is compared with each other. So a crowd of n near copies costs about n comparisons, wherever
    it stands, and not n^2 / 2.
    """
    fates = Fates.all_stay(len(texts))

    def compare(likely: Likely, earlier: Flags, later: Flags) -> Pairs:
        return joined(mapper(lambda piece: verified(piece, how), pieces(texts, likely, earlier, later)))

    def settle(likely: Likely, begin: int, end: int) -> None:
        stay = fates.partner < 0
        stay[:begin] = stay[end:] = False
        likely = likely.only(stay)
        few = max(AT_ONCE, PER_TEXT * int(stay.sum()))
        if end - begin < 2 or load(likely.bands, stay, stay) <= few:
            fates.settle(_greedy(compare(likely, stay, stay)))
            return
        middle = (begin + end) // 2
        settle(likely, begin, middle)
        first, second = (fates.partner < 0) & stay, stay.copy()
        first[middle:] = second[:middle] = False
        fates.settle(compare(likely, first, second))
        settle(likely, middle, end)

    settle(likely, 0, len(texts))
    return fates


def by_component(texts: pl.Series, likely: Likely, how: MinHash, mapper: Mapper) -> Fates:
    """A text goes iff a chain of close pairs joins it to an earlier text; its partner is the chain's first.

    The two may be less similar than the threshold. A crowd of n near copies costs up to n^2 / 2 comparisons.
    """

    def star(piece: Piece) -> Stars:
        found = verified(piece, how)
        return stars(found.first, found.second)

    everywhere = np.ones(len(texts), np.bool_)
    second, first = merged(mapper(star, pieces(texts, likely, everywhere, everywhere)))
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


def _greedy(pairs: Pairs) -> Pairs:
    """Of the pairs those in which the first stays and the second goes for it."""
    gone: set[int] = set()
    chosen = []
    for at, (first, second) in enumerate(zip(pairs.first.tolist(), pairs.second.tolist(), strict=True)):
        if first not in gone and second not in gone:
            gone.add(second)
            chosen.append(at)
    return Pairs(pairs.first[chosen], pairs.second[chosen], pairs.jaccard[chosen])

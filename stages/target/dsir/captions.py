"""The pool's captions, part by part: what is counted in a part adds up, and what is weighed depends on nothing else."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import TypeVar

import numpy as np
import polars as pl

from schemas.columns import CAPTION
from stages.budget import Mask
from stages.ngrams import Doubles, Hashing, Ngrams, hash_ngrams
from stages.rule import Context
from stages.target.dsir.weights import Mode, weigh
from stages.tokens import Integers

Result = TypeVar("Result")


@dataclass(frozen=True)
class Features:
    """How a caption becomes n-grams."""

    longest: int
    buckets: int
    mode: Mode

    def read(self, table: pl.DataFrame) -> "Captions":
        """The captions of a table with `uid` and `caption`; nulls are captions without a token."""
        hashing: Hashing = "sha256" if self.mode == "exact" else "xxh3"
        texts = table[CAPTION.name].fill_null("")
        return Captions(table["uid"], hash_ngrams(texts, self.longest, self.buckets, hashing), self.mode)


@dataclass(frozen=True)
class Captions:
    """n captions."""

    uids: pl.Series
    ngrams: Ngrams
    mode: Mode

    def weigh(self, ratios: Sequence[Doubles]) -> pl.DataFrame:
        """(uid, words, length, 0, 1, ...): tokens, the length that is cut by, the weight by each log ratio (B,)."""
        weights = [weigh(self.ngrams, ratio, self.mode) for ratio in ratios]
        columns = {str(number): found.log for number, found in enumerate(weights)}
        return pl.DataFrame({"uid": self.uids, "words": self.ngrams.tokens, "length": weights[0].length, **columns})


class Pool:
    """The pool's captions: held as they are, or read anew for each question where they come in parts."""

    def __init__(self, rows: pl.LazyFrame, context: Context, features: Features) -> None:
        self._pieces: tuple[pl.LazyFrame | Captions, ...] = context.parts or (features.read(rows.collect()),)
        self._map = context.map
        self._features = features
        found = self._each(lambda captions: (len(captions.uids), captions.ngrams.histogram()))
        self._sizes = [size for size, _ in found]
        self.whole: Integers = np.sum([counts for _, counts in found], axis=0)
        """(B,) the histogram of all captions."""

    def weigh(self, ratios: Sequence[Doubles]) -> pl.DataFrame:
        """As `Captions.weigh`, part after part; `place` numbers the rows."""
        return pl.concat(self._each(lambda captions: captions.weigh(ratios))).with_row_index("place")

    def histograms(self, chosen: Sequence[pl.Series]) -> list[Integers]:
        """(B,) of the captions at each list of places."""
        masks = np.zeros((len(chosen), sum(self._sizes)), np.bool_)
        for mask, places in zip(masks, chosen, strict=True):
            mask[places.to_numpy()] = True
        cut = [masks[:, begin:end] for begin, end in pairwise(accumulate(self._sizes, initial=0))]
        features = self._features

        def count(work: tuple[pl.LazyFrame | Captions, Mask]) -> list[Integers]:
            captions = _opened(work[0], features)
            return [captions.ngrams.histogram(mask) for mask in work[1]]

        return list(np.sum(self._map(count, list(zip(self._pieces, cut, strict=True))), axis=0))

    def _each(self, function: Callable[[Captions], Result]) -> list[Result]:
        features = self._features
        return self._map(lambda piece: function(_opened(piece, features)), self._pieces)


def _opened(piece: pl.LazyFrame | Captions, features: Features) -> Captions:
    return piece if isinstance(piece, Captions) else features.read(piece.collect())

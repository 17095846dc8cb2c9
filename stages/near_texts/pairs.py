"""Pairs of texts whose sets of n-grams overlap: candidates by MinHash, those that may be close verified.

A pair that is verified costs some 5 microseconds, and one that its bitmaps rule out before a fiftieth of that.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
import numpy.typing as npt
import polars as pl

from stages.near_texts.bands import Buckets, band_keys, buckets, candidates, choose_bands
from stages.near_texts.bitmaps import Bitmaps
from stages.near_texts.shingles import Cut, Flags, Hashes, Integers, Shingles, blocks, ranges, runs, shingles
from stages.near_texts.signatures import Scheme, matrices, sha1_shingles, signatures, upper_words

Doubles = npt.NDArray[np.float64]
ONE = np.uint64(1)
PIECE_PAIRS = 1 << 14
"""Verified at a time and more, where there are more."""
BLOCK_NGRAMS = 1 << 22
"""N-grams of the pairs that are verified at a time, more only where one pair has more; each takes some 50 bytes."""


@dataclass(frozen=True)
class Pairs:
    """Pairs of positions, each once, sorted by (second, first)."""

    first: Integers
    second: Integers
    """Greater than `first`."""
    jaccard: Doubles


@dataclass(frozen=True)
class Hashed:
    """What is kept of n texts to tell which are worth comparing."""

    keys: Hashes
    """(bands, n)"""
    bitmaps: Bitmaps

    @classmethod
    def joined(cls, parts: Sequence["Hashed"]) -> "Hashed":
        """Those of all parts, part after part; at least one."""
        keys = np.concatenate([part.keys for part in parts], axis=1)
        return cls(keys, Bitmaps.joined([part.bitmaps for part in parts]))

    def at(self, places: Integers) -> "Hashed":
        """Those of some texts."""
        return Hashed(self.keys[:, places], self.bitmaps.at(places))


@dataclass(frozen=True)
class MinHash:
    """How near texts are looked for.

    `recall` is the share of pairs at the threshold that are found; above it more are. `compat` takes datasketch's
    hashes (SHA-1 of each n-gram) and its permutations; by default hashes are quicker, and permutations as `affine32`.
    """

    threshold: float
    cut: Cut = field(default_factory=Cut)
    recall: float = 0.95
    permutations: int = 192
    compat: Scheme | None = None

    def hashed(self, texts: Sequence[str]) -> Hashed:
        """Of n texts, given in their normal form."""
        return Hashed.joined([self._hashed(texts[block]) for block in blocks(texts)] or [self._hashed([])])

    def _hashed(self, texts: Sequence[str]) -> Hashed:
        bands, rows = choose_bands(self.threshold, self.recall, self.permutations)
        found = shingles(texts, self.cut)
        if self.compat is None:
            signature = signatures(upper_words(found), found.counts, self.permutations, bands * rows)
        else:
            spelled = sha1_shingles(texts, self.cut)
            signature = signatures(*spelled, self.permutations, bands * rows, self.compat)
        return Hashed(band_keys(signature, bands, rows), Bitmaps.of(found))


def close_texts(texts: Sequence[str], threshold: float, minhash: MinHash | None = None) -> Pairs:
    """Every pair of texts, given in their normal form, that was found and has a Jaccard index >= `threshold`.

    Empty texts are close to nothing. Equal texts are pairs like others, so n copies are n (n - 1) / 2 pairs: collapse
    them before where there may be many.
    """
    how = minhash or MinHash(threshold)
    hashed = how.hashed(texts)
    everywhere = np.fromiter(map(bool, texts), np.bool_, len(texts))
    likely = Likely([buckets(each).only(everywhere) for each in hashed.keys], hashed.bitmaps, how.threshold)
    found = pieces(pl.Series(texts, dtype=pl.String), likely, everywhere, everywhere)
    return joined([verified(piece, how) for piece in found])


@dataclass(frozen=True)
class Likely:
    """Which of n texts may be close: those that share a bucket of some band and whose bitmaps do not rule it out."""

    bands: Sequence[Buckets]
    bitmaps: Bitmaps
    threshold: float

    def only(self, chosen: Flags) -> "Likely":
        """Those places that are chosen (n,)."""
        return replace(self, bands=[band.only(chosen) for band in self.bands])

    def pairs(self, earlier: Flags, later: Flags) -> Iterator[tuple[Integers, Integers]]:
        """See `candidates`."""
        return candidates(self.bands, earlier, later, partial(self.bitmaps.may_reach, self.threshold))


@dataclass(frozen=True)
class Piece:
    """Candidates to verify, with their own texts."""

    texts: list[str]
    places: Integers
    """Where each text stands among all texts."""
    first: Integers
    second: Integers


def pieces(texts: pl.Series, likely: Likely, earlier: Flags, later: Flags) -> Iterator[Piece]:
    """The candidates between `earlier` and `later` places, in independent pieces of bounded size; see `candidates`.

    All candidates of a second place are in one piece.
    """
    for first, second in _gathered(likely.pairs(earlier, later)):
        used, local = np.unique(np.concatenate([first, second]), return_inverse=True)
        yield Piece(texts.gather(used).to_list(), used, local[: len(first)], local[len(first) :])


def _gathered(blocks: Iterator[tuple[Integers, Integers]]) -> Iterator[tuple[Integers, Integers]]:
    """The same pairs in fewer blocks of `PIECE_PAIRS` and more, but for the last one."""
    held: list[tuple[Integers, Integers]] = []
    for block in blocks:
        held.append(block)
        if sum(len(first) for first, _ in held) >= PIECE_PAIRS:
            yield _together(held)
            held = []
    if any(len(first) for first, _ in held):
        yield _together(held)


def _together(held: Sequence[tuple[Integers, Integers]]) -> tuple[Integers, Integers]:
    return np.concatenate([first for first, _ in held]), np.concatenate([second for _, second in held])


def verified(piece: Piece, how: MinHash) -> Pairs:
    """The candidates whose Jaccard index reaches the threshold."""
    jaccard = jaccards(piece.texts, piece.first, piece.second, how.cut)
    close = jaccard >= how.threshold
    return Pairs(piece.places[piece.first[close]], piece.places[piece.second[close]], jaccard[close])


def joined(found: Sequence[Pairs]) -> Pairs:
    """All pairs, sorted."""
    nothing = np.zeros(0, np.int64)
    first = np.concatenate([nothing, *(each.first for each in found)])
    second = np.concatenate([nothing, *(each.second for each in found)])
    jaccard = np.concatenate([np.zeros(0), *(each.jaccard for each in found)])
    order = np.lexsort((first, second))
    return Pairs(first[order], second[order], jaccard[order])


def jaccards(texts: Sequence[str], first: Integers, second: Integers, cut: Cut) -> Doubles:
    """|A & B| / |A | B| of the n-gram sets of the texts at each pair of places; 0 where one is empty.

    Exact, but for n-grams whose hashes agree in 63 bits. Pairs are taken `BLOCK_NGRAMS` at a time, so that many of
    long texts take no more memory than few.
    """
    found = shingles(texts, cut)
    index = np.zeros(len(first))
    for some in runs(found.counts[first] + found.counts[second], BLOCK_NGRAMS):
        index[some] = _indices(found, first[some], second[some])
    return index


def _indices(found: Shingles, first: Integers, second: Integers) -> Doubles:
    """The last bit tells A from B: with both sorted together, a hash of both sets is where an A is followed by its B.

    A hash of the union is where another one begins.
    """
    begin = np.cumsum(found.counts) - found.counts
    index = np.zeros(len(first))
    filled = np.flatnonzero((found.counts[first] > 0) & (found.counts[second] > 0))
    sides = np.stack([first[filled], second[filled]], axis=1).ravel()
    counts = found.counts[sides]
    tags = np.repeat(np.tile(np.array([0, 1], np.uint64), len(filled)), counts)
    tagged = (found.hashes[ranges(begin[sides], counts)] & ~ONE) | tags
    for pairs, places in matrices(counts[::2] + counts[1::2]):
        both = np.sort(tagged[places].T, axis=1)
        steps = both[:, 1:] ^ both[:, :-1]
        index[filled[pairs]] = (steps == ONE).sum(axis=1) / (1 + (steps > ONE).sum(axis=1))
    return index

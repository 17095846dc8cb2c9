"""Pairs of texts whose sets of n-grams overlap: candidates by MinHash, each verified by its exact Jaccard index."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import polars as pl

from stages.near_texts.bands import Buckets, Flags, band_keys, buckets, candidates, choose_bands
from stages.near_texts.shingles import Cut, Hashes, Integers, Shingles, blocks, ranges, runs, shingles
from stages.near_texts.signatures import Scheme, matrices, sha1_shingles, signatures, upper_words

Doubles = npt.NDArray[np.float64]
ONE = np.uint64(1)
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

    def keys(self, texts: Sequence[str]) -> Hashes:
        """(bands, n) keys of n texts, given in their normal form."""
        bands, rows = choose_bands(self.threshold, self.recall, self.permutations)
        found = [np.zeros((bands, 0), np.uint64)]
        for block in blocks(texts):
            signature = self._signatures(texts[block], bands * rows)
            found.append(band_keys(signature, bands, rows))
        return np.concatenate(found, axis=1)

    def _signatures(self, texts: Sequence[str], used: int) -> npt.NDArray[np.uint32]:
        if self.compat is None:
            found = shingles(texts, self.cut)
            return signatures(upper_words(found), found.counts, self.permutations, used)
        return signatures(*sha1_shingles(texts, self.cut), self.permutations, used, self.compat)


def close_texts(texts: Sequence[str], threshold: float, minhash: MinHash | None = None) -> Pairs:
    """Every pair of texts, given in their normal form, that was found and has a Jaccard index >= `threshold`.

    Empty texts are close to nothing. Equal texts are pairs like others, so n copies are n (n - 1) / 2 pairs: collapse
    them before where there may be many.
    """
    how = minhash or MinHash(threshold)
    keys = how.keys(texts)
    everywhere = np.fromiter(map(bool, texts), np.bool_, len(texts))
    bands = [buckets(each).only(everywhere) for each in keys]
    found = pieces(pl.Series(texts, dtype=pl.String), bands, everywhere, everywhere)
    return joined([verified(piece, how) for piece in found])


@dataclass(frozen=True)
class Piece:
    """Candidates to verify, with their own texts."""

    texts: list[str]
    places: Integers
    """Where each text stands among all texts."""
    first: Integers
    second: Integers


def pieces(texts: pl.Series, bands: Sequence[Buckets], earlier: Flags, later: Flags) -> Iterator[Piece]:
    """The candidates between `earlier` and `later` places, in independent pieces of bounded size; see `candidates`."""
    for first, second in candidates(bands, earlier, later):
        used, local = np.unique(np.concatenate([first, second]), return_inverse=True)
        yield Piece(texts.gather(used).to_list(), used, local[: len(first)], local[len(first) :])


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

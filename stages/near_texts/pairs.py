"""Pairs of texts whose sets of n-grams overlap: candidates by MinHash, each verified by its exact Jaccard index."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import polars as pl

from stages.near_texts.bands import Buckets, Flags, band_keys, buckets, candidates, choose_bands
from stages.near_texts.shingles import Cut, Hashes, Integers, Shingles, blocks, ranges, shingles
from stages.near_texts.signatures import Scheme, sha1_shingles, signatures, upper_words
from stages.rule import Mapper, in_order

Doubles = npt.NDArray[np.float64]


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
    permutations: int = 128
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
    return verified(pl.Series(texts, dtype=pl.String), bands, everywhere, everywhere, how)


def verified(
    texts: pl.Series, bands: Sequence[Buckets], earlier: Flags, later: Flags, how: MinHash, mapper: Mapper = in_order
) -> Pairs:
    """The candidates between `earlier` and `later` places whose Jaccard index reaches the threshold.

    Each block of candidates is an independent piece of work, and takes its own texts along.
    """

    def pieces() -> Iterator[tuple[list[str], Integers, Integers, Integers]]:
        for first, second in candidates(bands, earlier, later):
            used, local = np.unique(np.concatenate([first, second]), return_inverse=True)
            yield texts.gather(used).to_list(), used, local[: len(first)], local[len(first) :]

    def compare(piece: tuple[list[str], Integers, Integers, Integers]) -> Pairs:
        own, used, first, second = piece
        jaccard = jaccards(own, first, second, how.cut)
        close = jaccard >= how.threshold
        return Pairs(used[first[close]], used[second[close]], jaccard[close])

    return joined(mapper(compare, pieces()))


def joined(found: Sequence[Pairs]) -> Pairs:
    """All pairs, sorted."""
    nothing = np.zeros(0, np.int64)
    first = np.concatenate([nothing, *(each.first for each in found)])
    second = np.concatenate([nothing, *(each.second for each in found)])
    jaccard = np.concatenate([np.zeros(0), *(each.jaccard for each in found)])
    order = np.lexsort((first, second))
    return Pairs(first[order], second[order], jaccard[order])


def jaccards(texts: Sequence[str], first: Integers, second: Integers, cut: Cut) -> Doubles:
    """|A & B| / |A | B| of the n-gram sets of the texts at each pair of places; 0 for two empty texts.

    Exact, but for n-grams whose 64-bit hashes collide, which is 2^-64 for two.
    """
    found = shingles(texts, cut)
    names, ids = np.unique(found.hashes, return_inverse=True)
    size = max(len(names), 1)
    codes = np.unique(found.owners() * size + ids)  # each n-gram once per text
    owners, ids = np.divmod(codes, size)
    counts = np.bincount(owners, minlength=len(texts))
    both = _common(Shingles(ids.astype(np.uint64), counts), first, second, size)
    union = counts[first] + counts[second] - both
    index: Doubles = both / np.maximum(union, 1)
    return index


def _common(sets: Shingles, first: Integers, second: Integers, size: int) -> Integers:
    """How many of their distinct n-grams two texts share."""
    begin = np.cumsum(sets.counts) - sets.counts
    numbers = np.arange(len(first))
    places = np.concatenate([ranges(begin[side], sets.counts[side]) for side in (first, second)])
    pairs = np.concatenate([np.repeat(numbers, sets.counts[side]) for side in (first, second)])
    codes = np.sort(pairs * size + sets.hashes[places].astype(np.int64))
    twice = codes[1:][codes[1:] == codes[:-1]]
    return np.bincount(twice // size, minlength=len(first))

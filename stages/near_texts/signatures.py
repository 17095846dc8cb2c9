"""MinHash signatures of many sets at once (Broder, 1997), bit-equal to those of `datasketch`.

A permutation k maps a 32-bit hash h of a shingle, and a signature holds each permutation's minimum over the set; two
sets agree in a minimum with probability J, their Jaccard index. `affine32`: fmix32(h) a_k + b_k modulo 2^32, a_k odd;
`legacy`, of datasketch before 2.0: ((h a_k + b_k) modulo 2^64) modulo (2^61 - 1), of which the low 32 bits. datasketch
goes set by set; here sets of about the same size are one matrix, and a permutation is a few operations on it.
"""

import hashlib
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from stages.near_texts.shingles import Cut, Integers, Shingles

Scheme = Literal["affine32", "legacy"]
Words = npt.NDArray[np.uint32]

SEED = 1
"""datasketch's own."""
CELLS = 1 << 16
"""Hashes in a matrix: it and its permutation stay in the second cache of a processor with 1 MiB of it."""
WIDTHS = np.unique(np.ceil(1.1 ** np.arange(200)).astype(np.int64))
"""Sizes that sets are filled up to, at most a tenth more."""
MERSENNE = np.uint64((1 << 61) - 1)
LARGEST = np.uint32((1 << 32) - 1)


@cache
def permutations(number: int, scheme: Scheme) -> tuple[npt.NDArray[Any], ...]:
    """The parameters a and b (number,) that `datasketch.MinHash(number, scheme=scheme)` has."""
    from datasketch import MinHash

    a, b = MinHash(number, seed=SEED, scheme=scheme).permutations
    return a, b


def sha1_shingles(texts: Sequence[str], cut: Cut) -> tuple[Words, Integers]:
    """datasketch's hash of each n-gram, spelled in UTF-8, and their number per text; each distinct one hashed once."""
    spelled = [cut.spelled(text) for text in texts]
    known = {ngram: _sha1(ngram) for ngram in {ngram for ngrams in spelled for ngram in ngrams}}
    counts = np.fromiter(map(len, spelled), np.int64, len(spelled))
    hashes = (known[ngram] for ngrams in spelled for ngram in ngrams)
    return np.fromiter(hashes, np.uint32, int(counts.sum())), counts


def _sha1(ngram: str) -> int:
    return int.from_bytes(hashlib.sha1(ngram.encode(errors="surrogatepass")).digest()[:4], "little")


def upper_words(found: Shingles) -> Words:
    """32 bits of each shingle's hash."""
    return (found.hashes >> np.uint64(32)).astype(np.uint32)


def signatures(hashes: Words, counts: Integers, number: int, used: int, scheme: Scheme = "affine32") -> Words:
    """(used, n) minima of the first `used` of `number` permutations over n sets, given one after the other.

    An empty set has 2^32 - 1 everywhere. The values are those of datasketch, which keeps `legacy` ones in 64 bits.
    """
    a, b = permutations(number, scheme)
    found = np.full((used, len(counts)), LARGEST, np.uint32)
    source, lowest = (_fmix32(hashes), _affine) if scheme == "affine32" else (hashes.astype(np.uint64), _legacy)
    for sets, places in matrices(counts):
        found[:, sets] = lowest(source[places], a[:used], b[:used])
    return found


def matrices(counts: Integers) -> Iterator[tuple[Integers, Integers]]:
    """Ragged rows, one after the other, as matrices that are filled up with little.

    Yields (m,) rows of about the same length and (width, m) places of what they hold, each row's last one repeated.
    """
    begin = np.cumsum(counts) - counts
    order = np.argsort(counts, kind="stable")
    order = order[counts[order] > 0]
    kinds = np.searchsorted(WIDTHS, counts[order])
    for same in np.split(order, np.flatnonzero(np.diff(kinds)) + 1):
        width = int(counts[same].max(initial=0))
        step = max(CELLS // max(width, 1), 1)
        for at in range(0, len(same), step):
            sets = same[at : at + step]
            yield sets, begin[sets] + np.minimum(np.arange(width)[:, None], counts[sets] - 1)


def _affine(window: Any, a: Any, b: Any) -> Any:
    lowest = np.empty((len(a), window.shape[1]), np.uint32)
    step = max(CELLS // window.size, 1)  # so many permutations at a time
    for at in range(0, len(a), step):
        permuted = window * a[at : at + step, None, None]
        permuted += b[at : at + step, None, None]
        np.minimum.reduce(permuted, axis=1, out=lowest[at : at + step])
    return lowest


def _legacy(window: Any, a: Any, b: Any) -> Any:
    lowest = np.empty((len(a), window.shape[1]), np.uint64)
    for k, into in enumerate(lowest):
        permuted = window * a[k] + b[k]
        permuted = (permuted & MERSENNE) + (permuted >> np.uint64(61))  # the remainder, or it and one modulus
        permuted[permuted >= MERSENNE] -= MERSENNE
        (permuted & np.uint64(LARGEST)).min(axis=0, out=into)
    return lowest


def _fmix32(hashes: Words) -> Words:
    """The finalizer of MurmurHash3, a bijection."""
    mixed = (hashes ^ (hashes >> np.uint32(16))) * np.uint32(0x85EBCA6B)
    mixed = (mixed ^ (mixed >> np.uint32(13))) * np.uint32(0xC2B2AE35)
    return mixed ^ (mixed >> np.uint32(16))

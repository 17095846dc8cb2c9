"""Hashed n-grams of many texts at once, as arrays of bucket numbers.

`data-selection` runs a regular expression over every text, hashes every n-gram with SHA-256 and fills a dense vector
per text. Here texts become arrays of word numbers (tokens.py). SHA-256 buckets, equal to that package's, are computed
once for each distinct n-gram; XXH3 buckets mix the hashes of the words, without ever spelling an n-gram.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import pairwise
from typing import Literal

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from stages.tokens import Integers, Tokens, tokenise

Doubles = npt.NDArray[np.float64]
Buckets = npt.NDArray[np.int32]

BLOCK_BYTES = 2**24
"""Text hashed at a time; bounds the memory for its words."""
MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
"""Odd, so that multiplying modulo 2^64 loses nothing."""
Hashing = Literal["sha256", "xxh3"]


@dataclass(frozen=True)
class Ngrams:
    """The n-grams of n texts, as bucket numbers."""

    buckets: tuple[Buckets, ...]
    """For each length i = 1, 2, ... the i-grams' buckets, text after text in the text's order."""
    tokens: Integers
    """(n,) tokens of each text."""
    size: int
    """Number of buckets B."""

    def counts(self) -> Integers:
        """(n,) n-grams of each text, all lengths together."""
        lengths = [self._counts(i) for i in range(1, len(self.buckets) + 1)]
        return np.asarray(np.sum(lengths, axis=0), np.int64)

    def only(self, chosen: npt.NDArray[np.bool_]) -> "Ngrams":
        """The same for the `chosen` (n,) texts."""
        lengths = enumerate(self.buckets, 1)
        buckets = tuple(found[np.repeat(chosen, self._counts(i))] for i, found in lengths)
        return Ngrams(buckets, self.tokens[chosen], self.size)

    def histogram(self, chosen: npt.NDArray[np.bool_] | None = None) -> Integers:
        """(B,) how often each bucket occurs in all texts, or in those `chosen` (n,)."""
        total = np.zeros(self.size, np.int64)
        for i, buckets in enumerate(self.buckets, 1):
            mine = buckets if chosen is None else buckets[np.repeat(chosen, self._counts(i))]
            total += np.bincount(mine, minlength=self.size)
        return total

    def sums(self, values: Doubles) -> Doubles:
        """(n,) for each text the sum of `values` (B,) over its n-grams; 0 for a text without tokens.

        Each sum runs in the text's own order, so it does not depend on the other texts.
        """
        total = np.zeros(len(self.tokens))
        for i, buckets in enumerate(self.buckets, 1):
            owners = np.repeat(np.arange(len(self.tokens)), self._counts(i))
            total += np.bincount(owners, values[buckets], len(self.tokens))
        return total

    def _counts(self, i: int) -> Integers:
        return np.maximum(self.tokens - (i - 1), 0)


def bucket(ngram: str, size: int) -> int:
    """SHA-256 of the UTF-8 text, as a number modulo `size`; bucket("alice", 10_000) is 6720."""
    return int(_sha256_remainders([ngram.encode()], size)[0])


def hash_ngrams(
    texts: pl.Series | Sequence[str], longest: int = 2, size: int = 10_000, hashing: Hashing = "sha256"
) -> Ngrams:
    """Lower-cased token n-grams of length 1 to `longest`, hashed into `size` < 2^31 buckets; texts without nulls.

    sha256: the tokens joined by a space, as published. xxh3: modulo 2^64, h(w1 .. wi) = h(w1 .. wi-1) x odd + h(wi).
    """
    column = pl.Series(texts, dtype=pl.String)
    block = column.str.len_bytes().cast(pl.Int64).cum_sum() // BLOCK_BYTES
    cuts = [0, *(np.flatnonzero(np.diff(block.to_numpy())) + 1).tolist(), len(column)]
    blocks = [_hash_block(column[at:end], longest, size, hashing) for at, end in pairwise(cuts)]
    buckets = tuple(np.concatenate([block.buckets[i] for block in blocks]) for i in range(longest))
    return Ngrams(buckets, np.concatenate([block.tokens for block in blocks]), size)


def _hash_block(texts: pl.Series, longest: int, size: int, hashing: Hashing) -> Ngrams:
    tokens = tokenise(texts)
    found = _sha256_buckets(tokens, longest, size) if hashing == "sha256" else _xxh3_buckets(tokens, longest, size)
    return Ngrams(tuple(found), tokens.counts, size)


def _sha256_buckets(tokens: Tokens, longest: int, size: int) -> Iterator[Buckets]:
    words, space = pa.array(tokens.words, pa.large_binary()), pa.scalar(b" ", pa.large_binary())
    ngrams, codes, ids = words, tokens.ids.astype(np.int64), tokens.ids.astype(np.int64)
    yield _sha256_remainders(tokens.words, size)[ids]
    for i in range(2, longest + 1):
        inside = tokens.begins(i)[: max(len(ids) - i + 1, 0)]
        pairs = codes[: len(inside)] * len(words) + ids[i - 1 :]
        distinct = pa.array(pairs[inside]).dictionary_encode()
        before, last = np.divmod(distinct.dictionary.to_numpy(), max(len(words), 1))
        ngrams = pc.binary_join_element_wise(ngrams.take(before), words.take(last), space)
        found = distinct.indices.to_numpy()
        codes = np.zeros(len(inside), np.int64)
        codes[inside] = found  # dense again, so that the codes of longer n-grams cannot overflow
        yield _sha256_remainders(ngrams.to_pylist(), size)[found]


def _sha256_remainders(ngrams: Sequence[bytes], size: int) -> Buckets:
    """(n,) the 256-bit numbers modulo `size`, 32 bits at a time from the top."""
    digests = b"".join([sha256(ngram).digest() for ngram in ngrams])
    left = np.zeros(len(ngrams), np.uint64)
    for digits in np.frombuffer(digests, ">u4").reshape(-1, 8).T:
        left = ((left << np.uint64(32)) + digits) % np.uint64(size)
    return left.astype(np.int32)


def _xxh3_buckets(tokens: Tokens, longest: int, size: int) -> Iterator[Buckets]:
    hashes = map(xxhash.xxh3_64_intdigest, tokens.words)
    last = np.fromiter(hashes, np.uint64, len(tokens.words))[tokens.ids]
    codes = last
    yield (codes % np.uint64(size)).astype(np.int32)
    for i in range(2, longest + 1):
        codes = codes[:-1] * MULTIPLIER + last[i - 1 :]  # also across texts; those are left out next
        yield (codes[tokens.begins(i)[: len(codes)]] % np.uint64(size)).astype(np.int32)

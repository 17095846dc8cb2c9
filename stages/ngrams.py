"""Hashed n-grams of many texts at once, as arrays of bucket numbers.

`data-selection` runs a regular expression over every text, hashes every n-gram with SHA-256 and fills a dense vector
per text. Here a text is split at white space (no token spans it) and each distinct piece is tokenised once, so that
texts become arrays of token numbers. SHA-256 buckets, equal to that package's, are computed once for each distinct
n-gram; XXH3 buckets mix the hashes of the tokens, without ever spelling an n-gram.
"""

import hashlib
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Literal

import numpy as np
import numpy.typing as npt
import xxhash

Integers = npt.NDArray[np.int64]
Doubles = npt.NDArray[np.float64]
Buckets = npt.NDArray[np.int32]

TOKEN = re.compile(r"\w+|[^\w\s]+")
"""nltk's WordPunctTokenizer: runs of word characters, runs of other characters that are no space."""
BLOCK_TEXTS = 200_000
"""Texts hashed at a time; bounds the memory for their words."""
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


@dataclass(frozen=True)
class _Tokens:
    """The tokens of a block of texts, one after the other, as numbers of distinct words."""

    ids: Integers
    counts: Integers
    words: list[str]

    def starts(self, i: int) -> Integers:
        """Positions in `ids` where an i-gram starts that ends inside its text."""
        left = np.repeat(np.cumsum(self.counts), self.counts) - np.arange(len(self.ids))
        return np.flatnonzero(left >= i)


def bucket(ngram: str, size: int) -> int:
    """SHA-256 of the UTF-8 text, as a number modulo `size`; bucket("alice", 10_000) is 6720."""
    return int.from_bytes(hashlib.sha256(_utf8(ngram)).digest(), "big") % size


def hash_ngrams(texts: Sequence[str], longest: int = 2, size: int = 10_000, hashing: Hashing = "sha256") -> Ngrams:
    """Lower-cased token n-grams of length 1 to `longest`, hashed into `size` buckets.

    sha256: the tokens joined by a space, as published. xxh3: modulo 2^64, h(w1 .. wi) = h(w1 .. wi-1) x odd + h(wi).
    """
    blocks = [_hash_block(texts[at : at + BLOCK_TEXTS], longest, size, hashing) for at in _offsets(len(texts))]
    buckets = tuple(np.concatenate([block.buckets[i] for block in blocks]) for i in range(longest))
    return Ngrams(buckets, np.concatenate([block.tokens for block in blocks]), size)


def _offsets(n: int) -> range:
    return range(0, max(n, 1), BLOCK_TEXTS)


def _hash_block(texts: Sequence[str], longest: int, size: int, hashing: Hashing) -> Ngrams:
    tokens = _tokenise(texts)
    found = _sha256_buckets(tokens, longest, size) if hashing == "sha256" else _xxh3_buckets(tokens, longest, size)
    return Ngrams(tuple(found), tokens.counts, size)


def _tokenise(texts: Sequence[str]) -> _Tokens:
    split = [text.lower().split() for text in texts]
    pieces: defaultdict[str, int] = defaultdict()
    pieces.default_factory = pieces.__len__  # an unseen piece gets the next number
    per_text = np.fromiter(map(len, split), np.int64, len(split))
    used = np.fromiter(map(pieces.__getitem__, chain.from_iterable(split)), np.int64, int(per_text.sum()))
    words: defaultdict[str, int] = defaultdict()
    words.default_factory = words.__len__
    tokens_of = [[piece] if piece.isalnum() else TOKEN.findall(piece) for piece in pieces]
    sizes = np.fromiter(map(len, tokens_of), np.int64, len(tokens_of))
    flat = np.fromiter(map(words.__getitem__, chain.from_iterable(tokens_of)), np.int64, int(sizes.sum()))
    taken = sizes[used]
    offsets = (np.cumsum(sizes) - sizes)[used] - (np.cumsum(taken) - taken)
    ids = flat[np.repeat(offsets, taken) + np.arange(int(taken.sum()))]
    owners = np.repeat(np.arange(len(split)), per_text)
    counts = np.bincount(owners, taken, len(split)).astype(np.int64)
    return _Tokens(ids, counts, list(words))


def _sha256_buckets(tokens: _Tokens, longest: int, size: int) -> Iterator[Buckets]:
    ngrams, codes = tokens.words, tokens.ids
    yield _table(ngrams, size)[codes]
    for i in range(2, longest + 1):
        starts = tokens.starts(i)
        longer, inverse = np.unique(codes[starts] * len(tokens.words) + tokens.ids[starts + i - 1], return_inverse=True)
        before, last = np.divmod(longer, max(len(tokens.words), 1))
        ngrams = [f"{ngrams[a]} {tokens.words[b]}" for a, b in zip(before.tolist(), last.tolist(), strict=True)]
        codes = np.zeros_like(tokens.ids)
        codes[starts] = inverse  # dense again, so that the codes of longer n-grams cannot overflow
        yield _table(ngrams, size)[inverse]


def _table(ngrams: Sequence[str], size: int) -> Buckets:
    return np.fromiter((bucket(ngram, size) for ngram in ngrams), np.int32, len(ngrams))


def _xxh3_buckets(tokens: _Tokens, longest: int, size: int) -> Iterator[Buckets]:
    hashes = (xxhash.xxh3_64_intdigest(_utf8(word)) for word in tokens.words)
    last = np.fromiter(hashes, np.uint64, len(tokens.words))[tokens.ids]
    codes = last.copy()
    yield (codes % np.uint64(size)).astype(np.int32)
    for i in range(2, longest + 1):
        starts = tokens.starts(i)
        codes[starts] = codes[starts] * MULTIPLIER + last[starts + i - 1]
        yield (codes[starts] % np.uint64(size)).astype(np.int32)


def _utf8(text: str) -> bytes:
    return text.encode(errors="surrogatepass")

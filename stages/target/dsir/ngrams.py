"""Hashed n-gram counts of many short texts at once, bucket for bucket those of `data-selection`.

That package hashes every n-gram of every text with SHA-256 and fills a dense vector per text. Here the tokens of a block
of texts become numbers, equal n-grams are found by sorting those numbers, and each distinct n-gram is hashed once.
"""

import hashlib
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice

import numpy as np
import numpy.typing as npt

Integers = npt.NDArray[np.int64]
Doubles = npt.NDArray[np.float64]
Buckets = npt.NDArray[np.int32]

TOKEN = re.compile(r"\w+|[^\w\s]+")
"""nltk's WordPunctTokenizer: runs of word characters, runs of other characters that are no space."""
BLOCK_TEXTS = 100_000
REMEMBERED_NGRAMS = 2_000_000
"""Distinct n-grams whose bucket is kept between blocks, a few hundred MB at most."""


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
        return np.sum(lengths, axis=0, dtype=np.int64)

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
    """SHA-256 of the UTF-8 text, as a number modulo `size`."""
    return int.from_bytes(hashlib.sha256(ngram.encode(errors="surrogatepass")).digest()) % size


def hash_ngrams(texts: Sequence[str], longest: int = 2, size: int = 10_000) -> Ngrams:
    """Lower-cased token n-grams of length 1 to `longest`, joined by a space and hashed into `size` buckets."""
    known: dict[str, int] = {}
    blocks = [_hash_block(block, longest, size, known) for block in _blocks(texts)] or [
        _hash_block([], longest, size, known)
    ]
    buckets = tuple(np.concatenate([block.buckets[i] for block in blocks]) for i in range(longest))
    return Ngrams(buckets, np.concatenate([block.tokens for block in blocks]), size)


def _blocks(texts: Sequence[str]) -> Iterator[list[str]]:
    remaining = iter(texts)
    while block := list(islice(remaining, BLOCK_TEXTS)):
        yield block


def _hash_block(texts: Sequence[str], longest: int, size: int, known: dict[str, int]) -> Ngrams:
    find: Callable[[str], list[str]] = TOKEN.findall
    split = [find(text.lower()) for text in texts]
    tokens = np.fromiter(map(len, split), np.int64, len(split))
    numbers: defaultdict[str, int] = defaultdict()
    numbers.default_factory = numbers.__len__  # a new token gets the next number
    ids = np.fromiter(map(numbers.__getitem__, chain.from_iterable(split)), np.int64, int(tokens.sum()))
    words = list(numbers)
    room = np.repeat(np.cumsum(tokens), tokens) - np.arange(len(ids))  # tokens from here to the text's end
    codes, buckets = ids, []
    for i in range(1, longest + 1):
        if i > 1:
            codes = codes * len(words) + np.roll(ids, 1 - i)
        starts = np.flatnonzero(room >= i)
        _, first, inverse = np.unique(codes[starts], return_index=True, return_inverse=True)
        texts_of = (" ".join([words[word] for word in ids[at : at + i]]) for at in starts[first])
        table = np.fromiter((_remembered(text, size, known) for text in texts_of), np.int32, len(first))
        buckets.append(table[inverse])
        codes = np.zeros_like(ids)
        codes[starts] = inverse  # small again, so that codes of longer n-grams cannot overflow
    return Ngrams(tuple(buckets), tokens, size)


def _remembered(ngram: str, size: int, known: dict[str, int]) -> int:
    found = known.get(ngram)
    if found is None:
        found = bucket(ngram, size)
        if len(known) < REMEMBERED_NGRAMS:
            known[ngram] = found
    return found

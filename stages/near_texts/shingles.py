"""The n-grams of many texts at once, as arrays of 64-bit hashes.

A text is a sequence of symbols: its characters, or its words. An n-gram's hash mixes those of its symbols, so that no
n-gram is ever spelled: h(s1 .. sn) = h(s1 .. sn-1) x odd + h(sn) modulo 2^64, then scrambled.
"""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np
import numpy.typing as npt

Hashes = npt.NDArray[np.uint64]
Integers = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]
Unit = Literal["char", "word"]

MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
"""Odd, so that multiplying modulo 2^64 loses nothing."""
FILLER = "\0"
"""What fills up a text that is shorter than an n-gram; it occurs in no normal form."""
BLOCK_CHARACTERS = 1 << 20
"""Texts of about so many characters are cut at a time."""


@dataclass(frozen=True)
class Cut:
    """How a text is cut into overlapping n-grams.

    A text that is shorter than the shortest n-gram is one n-gram by itself: it equals its copies and nothing else. An
    empty text has none.
    """

    unit: Unit = "char"
    sizes: tuple[int, ...] = (3,)

    def spelled(self, text: str) -> list[str]:
        """The n-grams as texts, in order, repeats included; words are what stands between white space."""
        symbols = text if self.unit == "char" else text.split()
        if 0 < len(symbols) < min(self.sizes):
            return [self._joined(symbols)]
        places = ((at, size) for size in self.sizes for at in range(len(symbols) - size + 1))
        return [self._joined(symbols[at : at + size]) for at, size in places]

    def _joined(self, symbols: str | list[str]) -> str:
        return symbols if isinstance(symbols, str) else " ".join(symbols)


@dataclass(frozen=True)
class Shingles:
    """The n-grams of n texts, text after text."""

    hashes: Hashes
    counts: Integers
    """(n,) n-grams of each text."""

    def owners(self) -> Integers:
        """The text's place, for each hash."""
        return np.repeat(np.arange(len(self.counts)), self.counts)


def shingles(texts: Sequence[str], cut: Cut) -> Shingles:
    """Hashes of the n-grams of texts in normal form, repeats included; inside a text one size after the other."""
    symbols, lengths = (_characters if cut.unit == "char" else _words)(texts, min(cut.sizes))
    found = [_windows(symbols, lengths, size) for size in cut.sizes]
    if len(found) == 1:
        return found[0]
    counts = np.sum([each.counts for each in found], axis=0)
    hashes = np.empty(int(counts.sum()), np.uint64)
    begin = np.cumsum(counts) - counts
    for each in found:
        hashes[ranges(begin, each.counts)] = each.hashes
        begin = begin + each.counts
    return Shingles(hashes, counts)


def blocks(texts: Sequence[str]) -> Iterator[slice]:
    """Runs of texts of about `BLOCK_CHARACTERS`, at least one text each."""
    return runs(np.fromiter(map(len, texts), np.int64, len(texts)), BLOCK_CHARACTERS)


def runs(sizes: Integers, most: int) -> Iterator[slice]:
    """Runs of places whose sizes add up to no more than `most`, at least one place each."""
    ends = np.cumsum(sizes)
    begin = 0
    while begin < len(sizes):
        before = ends[begin - 1] if begin else 0
        end = max(begin + 1, int(np.searchsorted(ends, before + most, side="right")))
        yield slice(begin, end)
        begin = end


def ranges(begin: Integers, counts: Integers) -> Integers:
    """begin[0], begin[0] + 1, ... (counts[0] of them), begin[1], ..."""
    return np.repeat(begin - (np.cumsum(counts) - counts), counts) + np.arange(int(counts.sum()))


def scrambled(hashes: Hashes) -> Hashes:
    """A bijection under which close numbers come far apart (the finalizer of SplitMix64, Steele et al. 2014)."""
    mixed = (hashes ^ (hashes >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


def _characters(texts: Sequence[str], least: int) -> tuple[Hashes, Integers]:
    filled = [text.ljust(least, FILLER) if 0 < len(text) < least else text for text in texts]
    return _letters()[_codes("".join(filled))], np.fromiter(map(len, filled), np.int64, len(filled))


def _words(texts: Sequence[str], least: int) -> tuple[Hashes, Integers]:
    """A word is hashed to the sum of its letters' numbers, each times a number for its place in the word, scrambled."""
    codes = _codes(" ".join(texts))
    inside = codes != ord(" ")
    edges = np.flatnonzero(np.diff(inside, prepend=False, append=False))
    sizes = edges[1::2] - edges[::2]
    begin = np.cumsum(sizes) - sizes
    place = np.arange(int(sizes.sum())) - np.repeat(begin, sizes)
    weights = scrambled(np.arange(1, sizes.max(initial=0) + 1).astype(np.uint64)) | np.uint64(1)
    letters = _letters()[codes[inside]] * weights[place]
    hashes = scrambled(np.add.reduceat(letters, begin)) if len(begin) else letters
    counts = np.fromiter((len(text) > 0 and text.count(" ") + 1 for text in texts), np.int64, len(texts))
    filled = np.where(counts > 0, np.maximum(counts, least), 0)
    symbols = np.full(int(filled.sum()), _letters()[ord(FILLER)], np.uint64)
    symbols[ranges(np.cumsum(filled) - filled, counts)] = hashes
    return symbols, filled


def _codes(text: str) -> npt.NDArray[np.uint32]:
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)


@cache
def _letters() -> Hashes:
    """A number for each code point."""
    return scrambled(np.arange(1, sys.maxunicode + 2).astype(np.uint64) * MULTIPLIER)


def _windows(symbols: Hashes, lengths: Integers, size: int) -> Shingles:
    """Every run of `size` symbols that ends inside its text."""
    starts = max(len(symbols) - size + 1, 0)
    hashes = symbols[:starts].copy()
    for place in range(1, size):
        hashes *= MULTIPLIER
        hashes += symbols[place : place + starts]
    counts = np.maximum(lengths - (size - 1), 0)
    inside = ranges(np.cumsum(lengths) - lengths, counts)
    return Shingles(scrambled(hashes[inside]), counts)

"""Repeated word n-grams (Gopher, arXiv:2112.11446, appendix A.1.1).

Gopher takes, for n = 2, 3, 4, the share of characters inside the most frequent n-gram, and for n = 5 to 10 the share
inside all n-grams that occur more than once, each character once. Here shares are of the words' characters rather than
of the text's, so that pure repetition is 1 whatever stands between the words; an n-gram that occurs once is not
repeated and counts nothing; and the second measure's n is a setting, since five words are half a caption.
"""

import re
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache
from itertools import pairwise

TOP_SIZES = (2, 3, 4)
UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
"""Thai, Lao, Burmese, Khmer, kana and Han are written without spaces: each character counts as a word."""
MARKS = r"\p{M}"
"""Vowel signs, tones and accents: part of what they stand on, of a word or of a character that is one."""

ASCII_WORDS = re.compile(r"\w+", re.ASCII)


def words(lowered: str) -> list[str]:
    """The words of a lower-cased text, punctuation aside."""
    return ASCII_WORDS.findall(lowered) if lowered.isascii() else _words()(lowered)


@cache
def _words() -> Callable[[str], list[str]]:
    import regex

    spaced = rf"[[\p{{L}}\p{{N}}_]--[{UNSPACED}]]"  # letters, numbers, underscore, as in `re`
    pattern = rf"[{UNSPACED}]{MARKS}*+|{spaced}++(?:{MARKS}++{spaced}*+)*+"
    found: Callable[[str], list[str]] = regex.compile(pattern, regex.V1).findall
    return found


def repeats(tokens: Sequence[str]) -> bool:
    """Whether any two neighbours stand side by side a second time; without that no n-gram is repeated."""
    pairs = list(pairwise(tokens))
    return len(set(pairs)) < len(pairs)


def top_ngram_share(tokens: Sequence[str]) -> float:
    """Largest share, over n = 2, 3, 4, of the words' characters inside the most frequent repeated n-gram.

    Of equally frequent n-grams the one with more characters counts, then the one that comes first.
    """
    total = sum(map(len, tokens))
    best = 0
    for n in TOP_SIZES:
        grams = _ngrams(tokens, n)
        counts = Counter(grams)
        top, count = max(counts.items(), key=lambda item: (item[1], sum(map(len, item[0]))), default=((), 0))
        if count < 2:
            break
        best = max(best, _covered(tokens, n, [place for place, gram in enumerate(grams) if gram == top]))
    return best / total if total else 0.0


def repeated_ngram_share(tokens: Sequence[str], n: int) -> float:
    """Share of the words' characters inside word n-grams that occur more than once, each character once."""
    total = sum(map(len, tokens))
    grams = _ngrams(tokens, n)
    counts = Counter(grams)
    if len(counts) == len(grams):
        return 0.0
    return _covered(tokens, n, [place for place, gram in enumerate(grams) if counts[gram] > 1]) / total


def _ngrams(tokens: Sequence[str], n: int) -> list[tuple[str, ...]]:
    return list(zip(*(tokens[start:] for start in range(n)), strict=False))


def _covered(tokens: Sequence[str], n: int, starts: Sequence[int]) -> int:
    """Characters of the words in the n-grams that begin at `starts`, in ascending order."""
    seen = covered = 0
    for start in starts:
        covered += sum(map(len, tokens[max(seen, start) : start + n]))
        seen = start + n
    return covered

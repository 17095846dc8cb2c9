"""Shares of kinds of characters, by Unicode's general category."""

import re
import unicodedata
from functools import cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

UNSEEN, LOWER, UPPER, LETTER, DIGIT, SYMBOL = range(6)
"""White space, control and format characters; lower case; upper and title case; letters without case, and marks;
decimal digits; everything else that is shown."""
CLASSES = {"Cc": UNSEEN, "Cf": UNSEEN, "Ll": LOWER, "Lu": UPPER, "Lt": UPPER, "Nd": DIGIT}
FIRST_LETTERS = {"L": LETTER, "M": LETTER, "Z": UNSEEN}

TOP_LEVEL = (
    "com|org|net|edu|gov|info|io|co|biz|shop|store|online|site|xyz|me|tv|uk|de|fr|it|es|nl|ru|pl|br|in|jp|cn|au|ca|eu"
)
LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
URL = re.compile(
    r"(?:https?|ftp)://\S{1,2000}|\bwww\.\S{1,2000}"
    rf"|(?<![\w@.-]){LABEL}(?:\.{LABEL}){{0,3}}\.(?:{TOP_LEVEL})\b(?!\.?\w)(?:/\S{{0,2000}})?",
    re.ASCII,
)
"""With a scheme or `www.`, or a bare host under a top-level domain that is common on the web; for lower-cased text."""


class Shares(NamedTuple):
    """Each in [0, 1]."""

    digits: float
    symbols: float
    uppercase: float


def shares(text: str) -> Shares | None:
    """Digits and symbols among the characters that are shown, capitals among the letters with case (0 without any).

    None where nothing is shown: white space, control characters, zero-width characters.
    """
    codes = np.frombuffer(text.encode("utf-32-le"), np.uint32)
    counts = np.bincount(_classes()[codes], minlength=6).tolist()
    shown = len(codes) - counts[UNSEEN]
    if not shown:
        return None
    cased = counts[LOWER] + counts[UPPER]
    return Shares(counts[DIGIT] / shown, counts[SYMBOL] / shown, counts[UPPER] / cased if cased else 0.0)


def url_characters(lowered: str) -> int:
    """How many characters of a lower-cased text belong to web addresses."""
    if "." not in lowered and "://" not in lowered:
        return 0
    return sum(found.end() - found.start() for found in URL.finditer(lowered))


@cache
def _classes() -> npt.NDArray[np.uint8]:
    """Code point -> class; 1.1 MB, 0.3 s."""
    names = [unicodedata.category(chr(code)) for code in range(0x110000)]
    known = {name: CLASSES.get(name, FIRST_LETTERS.get(name[0], SYMBOL)) for name in set(names)}
    return np.array([known[name] for name in names], np.uint8)

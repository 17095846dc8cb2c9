"""A caption as the patterns read it: compatibility forms folded, marks and invisible characters gone, single spaces."""

import sys
import unicodedata
from functools import cache

CHARACTERS_SEEN = 1 << 20
"""This many leading characters are searched; every pattern takes linear time in them."""


def plain(caption: str) -> str:
    """NFKD without marks, control and format characters, white space collapsed: `ｉｇｎó\\u200bre` reads `ignore`.

    Marks go before the decomposition as well, because their canonical order is found in quadratic time.
    """
    text = caption.strip()[:CHARACTERS_SEEN]
    if not text.isascii():
        text = unicodedata.normalize("NFKD", text.translate(_dropped())).translate(_dropped())[:CHARACTERS_SEEN]
    return " ".join(text.split())


def shows_nothing(caption: str) -> bool:
    """Whether it holds nothing but white space, control and format characters; marks alone are something."""
    return all(letter.isspace() or unicodedata.category(letter) in ("Cc", "Cf") for letter in caption)


@cache
def _dropped() -> dict[int, None]:
    """Marks, and what is not shown but white space."""
    codes = (code for code in range(sys.maxunicode + 1) if not chr(code).isspace())
    return {code: None for code in codes if unicodedata.category(chr(code)) in ("Mn", "Me", "Cc", "Cf")}

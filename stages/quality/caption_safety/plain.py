"""A caption as the patterns read it: compatibility forms folded, marks and invisible characters gone, single spaces."""

import sys
import unicodedata
from functools import cache

CHARACTERS_SEEN = 1 << 20
"""This many leading characters are searched; every pattern takes linear time in them."""
BLOCK = 1 << 16
TYPED = {
    **dict.fromkeys(map(ord, "\u2018\u2019\u02bc\u2032"), "'"),
    **dict.fromkeys(map(ord, "\u201c\u201d\u201e"), '"'),
    **dict.fromkeys((*range(0x2010, 0x2016), 0x2212), "-"),
}
"""Typographic quotes, primes, hyphens, dashes and the minus: what a keyboard writes for them."""


def plain(caption: str) -> str:
    """NFKD without marks, control and format characters, white space collapsed: `ｉｇｎó\\u200bre` reads `ignore`.

    Quotes and dashes are those of a keyboard.

    Marks go before the decomposition as well, because their canonical order is found in quadratic time.
    """
    text = caption.strip()[:CHARACTERS_SEEN]
    return " ".join((text if text.isascii() else _folded(text)).split())


def _folded(text: str) -> str:
    """Block by block, since one character can have 18 in its compatibility form."""
    replaced, blocks, length = _replaced(), [], 0
    for start in range(0, len(text), BLOCK):
        decomposed = unicodedata.normalize("NFKD", text[start : start + BLOCK].translate(replaced))
        blocks.append(decomposed.translate(replaced))
        length += len(blocks[-1])
        if length >= CHARACTERS_SEEN:
            break
    return "".join(blocks)


def shows_nothing(caption: str) -> bool:
    """Whether it holds nothing but white space, control and format characters; marks alone are something."""
    return all(letter.isspace() or unicodedata.category(letter) in ("Cc", "Cf") for letter in caption)


@cache
def _replaced() -> dict[int, str | None]:
    """`TYPED`; None for marks, and for what is not shown but white space."""
    codes = (code for code in range(sys.maxunicode + 1) if not chr(code).isspace())
    dropped = {code: None for code in codes if unicodedata.category(chr(code)) in ("Mn", "Me", "Cc", "Cf")}
    return {**dropped, **TYPED}

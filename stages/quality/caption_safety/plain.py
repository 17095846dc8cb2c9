"""A caption as the patterns read it: compatibility forms folded, marks and invisible characters gone, single spaces."""

import sys
import unicodedata
from functools import cache

CHARACTERS_SEEN = 1 << 20
"""This many leading characters are searched; every pattern takes linear time in them."""
BLOCK = 1 << 16


def plain(caption: str) -> str:
    """NFKD without marks, control and format characters, white space collapsed: `ｉｇｎó\\u200bre` reads `ignore`.

    Marks go before the decomposition as well, because their canonical order is found in quadratic time.
    """
    text = caption.strip()[:CHARACTERS_SEEN]
    return " ".join((text if text.isascii() else _folded(text)).split())


def _folded(text: str) -> str:
    """Block by block, since one character can have 18 in its compatibility form."""
    dropped, blocks, length = _dropped(), [], 0
    for start in range(0, len(text), BLOCK):
        decomposed = unicodedata.normalize("NFKD", text[start : start + BLOCK].translate(dropped))
        blocks.append(decomposed.translate(dropped))
        length += len(blocks[-1])
        if length >= CHARACTERS_SEEN:
            break
    return "".join(blocks)


def shows_nothing(caption: str) -> bool:
    """Whether it holds nothing but white space, control and format characters; marks alone are something."""
    return all(letter.isspace() or unicodedata.category(letter) in ("Cc", "Cf") for letter in caption)


@cache
def _dropped() -> dict[int, None]:
    """Marks, and what is not shown but white space."""
    codes = (code for code in range(sys.maxunicode + 1) if not chr(code).isspace())
    return {code: None for code in codes if unicodedata.category(chr(code)) in ("Mn", "Me", "Cc", "Cf")}

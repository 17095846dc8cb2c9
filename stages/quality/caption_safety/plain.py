"""A caption as the patterns read it: compatibility forms folded, marks and invisible characters gone, single spaces."""

import re
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

LATIN = str.maketrans(
    "\u0430\u0435\u043a\u043e\u0440\u0441\u0443\u0445\u0456\u0458\u0455\u0501\u04bb\u051b\u051d"
    "\u0410\u0412\u0415\u041a\u041c\u041d\u041e\u0420\u0421\u0422\u0423\u0425\u0406\u0408\u0405"
    "\u03b1\u03b9\u03ba\u03bd\u03bf\u03c1\u03c5"
    "\u0391\u0392\u0395\u0396\u0397\u0399\u039a\u039c\u039d\u039f\u03a1\u03a4\u03a5\u03a7",
    "aekopcyxijsdhqwABEKMHOPCTYXIJSaikvopuABEZHIKMNOPTYX",
)
"""Cyrillic and Greek letters that look like Latin ones."""
FOREIGN = re.compile("[\u0370-\u052f]")
MIXED = re.compile("[a-zA-Z\u0370-\u052f]+")
"""Words of Latin, Greek and Cyrillic letters, perhaps of several."""


def plain(caption: str) -> str:
    """NFKD without marks, control and format characters, white space collapsed: `ｉｇｎó\\u200bre` reads `ignore`.

    Quotes and dashes are those of a keyboard. Cyrillic and Greek letters become the Latin ones that they look like, in
    words that hold Latin letters as well, so that Russian and Greek stay as they are.

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
    text = "".join(blocks)
    return MIXED.sub(_all_latin, text) if FOREIGN.search(text) else text


def _all_latin(word: re.Match[str]) -> str:
    mixed = FOREIGN.search(word[0]) and any(map(str.isascii, word[0]))
    return word[0].translate(LATIN) if mixed else word[0]


def shows_nothing(caption: str) -> bool:
    """Whether it holds nothing but white space, control and format characters; marks alone are something."""
    return all(letter.isspace() or unicodedata.category(letter) in ("Cc", "Cf") for letter in caption)


@cache
def _replaced() -> dict[int, str | None]:
    """`TYPED`; None for marks, and for what is not shown but white space."""
    codes = (code for code in range(sys.maxunicode + 1) if not chr(code).isspace())
    dropped = {code: None for code in codes if unicodedata.category(chr(code)) in ("Mn", "Me", "Cc", "Cf")}
    return {**dropped, **TYPED}

"""The normal form in which captions are compared: Unicode's toNFKC_Casefold (UAX #31, section 5.1), spaces collapsed.

Captions that differ in case, width, ligatures, invisible characters or white space have one normal form. What is
invisible is what Unicode says to ignore by default (soft hyphens, zero-width spaces and joiners, variation selectors,
Hangul fillers), and ours, other control and format characters.
"""

import unicodedata
from collections.abc import Callable
from functools import cache

JOINER = "\u034f"
"""The combining grapheme joiner, which UAX #15 puts behind 30 combining marks. It stays, though it is invisible, for
without it the marks would be sorted again."""

Substitute = Callable[[str, str], str]


def normal_form(caption: str) -> str:
    """NFKC and case-folded, invisible characters removed, whitespace runs as one space; idempotent.

    More than 30 combining marks in a row are broken up as in UAX #15's stream-safe text, for their canonical order is
    found by insertion, in quadratic time.
    """
    if caption.isascii() and caption.isprintable():
        lower = caption.lower()
        spaced = "  " in lower or lower[:1] == " " or lower[-1:] == " "  # the only white space that is printable
        return " ".join(lower.split()) if spaced else lower
    invisible, mark_runs = _patterns()
    shown = mark_runs(r"\g<0>" + JOINER, invisible("", caption))
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFD", shown).casefold())
    return " ".join(unicodedata.normalize("NFKC", folded.casefold()).split())


def composed(text: str) -> str:
    """NFC: letters and their marks as one character where there is one.

    More than 30 marks in a row are broken up, as in `normal_form`.
    """
    return text if text.isascii() else unicodedata.normalize("NFC", _patterns()[1](r"\g<0>" + JOINER, text))


@cache
def _patterns() -> tuple[Substitute, Substitute]:
    """Of invisible characters but for white space, and of 30 marks before another one."""
    import regex

    invisible = r"[[\p{Cc}\p{Cf}\p{Default_Ignorable_Code_Point}]--[\s\x1c-\x1f" + JOINER + "]]+"
    marks = r"\P{ccc=Not_Reordered}{30}(?=\P{ccc=Not_Reordered})"
    return regex.compile(invisible, regex.VERSION1).sub, regex.compile(marks).sub

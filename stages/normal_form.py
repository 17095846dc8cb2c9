"""The normal form in which captions are compared: Unicode's toNFKC_Casefold (UAX #31, section 5.1), spaces collapsed.

Captions that differ in case, width, ligatures, invisible characters or white space have one normal form.
"""

import unicodedata
from collections.abc import Callable
from functools import cache

JOINER = "\u034f"
"""The combining grapheme joiner, which UAX #15 puts behind 30 combining marks."""


def normal_form(caption: str) -> str:
    """NFKC and case-folded, invisible characters removed, whitespace runs as one space; idempotent.

    More than 30 combining marks in a row are broken up as in UAX #15's stream-safe text, for their canonical order is
    found by insertion, in quadratic time.
    """
    if caption.isascii() and caption.isprintable():
        lower = caption.lower()
        spaced = "  " in lower or lower[:1] == " " or lower[-1:] == " "  # the only white space that is printable
        return " ".join(lower.split()) if spaced else lower
    shown = "".join(letter for letter in caption if letter.isspace() or not _invisible(letter))
    shown = _mark_runs()(r"\g<0>" + JOINER, shown)
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFD", shown).casefold())
    return " ".join(unicodedata.normalize("NFKC", folded.casefold()).split())


def composed(text: str) -> str:
    """NFC: letters and their marks as one character where there is one.

    More than 30 marks in a row are broken up, as in `normal_form`.
    """
    return text if text.isascii() else unicodedata.normalize("NFC", _mark_runs()(r"\g<0>" + JOINER, text))


def _invisible(letter: str) -> bool:
    """Control and format characters: zero-width spaces and joiners, soft hyphens, byte order marks."""
    return unicodedata.category(letter) in ("Cc", "Cf")


@cache
def _mark_runs() -> Callable[[str, str], str]:
    import regex

    substitute: Callable[[str, str], str] = regex.compile(r"\P{ccc=Not_Reordered}{30}(?=\P{ccc=Not_Reordered})").sub
    return substitute

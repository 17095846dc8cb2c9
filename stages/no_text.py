"""What stands in a caption and is no text: counts, each in one pass over the caption whatever it holds."""

import re

CONTROLS = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\ufdd0-\ufdef\ufffe\uffff\ufffd]")
"""C0 and C1 but tab, line ends and form feed; code points that are no characters, and what stands for lost ones."""
BIDI = re.compile("[\u202a-\u202e\u2066-\u2069]")
"""Embeddings, overrides and isolates (UAX #9); the plain marks U+200E, U+200F and U+061C only lend a direction."""
MARKUP = re.compile(r"<(?:/?[A-Za-z]|![-A-Za-z\[]|\?)[^<>]{0,4000}>")
"""A scan from one `<` ends at the next, so no text takes more than linear time."""


def control_characters(text: str) -> int:
    """Control characters beside tab, line ends and form feed, and code points that are no characters."""
    return 0 if text.isprintable() else len(CONTROLS.findall(text))


def bidi_controls(text: str) -> int:
    """Controls that embed, override or isolate a direction, by which a text can be shown as another."""
    return 0 if text.isascii() else len(BIDI.findall(text))


def markup(text: str) -> int:
    """HTML or XML tags, comments and declarations; `&amp;` and the like are spelling, not markup."""
    return len(MARKUP.findall(text)) if "<" in text else 0

"""Long runs of encoded data: hex digits, base64, escaped bytes, data URIs.

A run of letters and digits is base64 rather than a word, path or slug when its characters keep changing between lower
case, capitals and digits. A step from a capital to a small letter is not counted, for it begins every word of
`CamelCase`: of base64's steps 0.4 change then, of such words' 0.17. At 0.25 one run of random bytes in a hundred is
missed, and one such word of 40 characters and more in a hundred is taken for data. The heads of image files are no such
bytes, but long rows of one letter: they show by what they begin with.
"""

import re
from itertools import pairwise

HEX_DIGITS = 32
"""An MD5 digest has 32, a SHA-256 64."""
BASE64_CHARACTERS = 40
CHANGES = 0.25
LOWER, UPPER, DIGIT = 1, 2, 3
JOINTS, JOINTS_SHARE = "-_/+", 0.12
"""What joins words in slugs and paths; of base64 it is a thirty-second part."""
RUN = re.compile(rf"(?<![A-Za-z0-9+/_=-])[A-Za-z0-9+/_-]{{{HEX_DIGITS},}}={{0,2}}")
HEX = re.compile(rf"(?:0x)?(?:[0-9a-f]{{{HEX_DIGITS},}}|[0-9A-F]{{{HEX_DIGITS},}})")
ESCAPED = re.compile(
    r"(?:\\x[0-9A-Fa-f]{2}){8,}|(?:%[0-9A-Fa-f]{2}){12,}|(?<![0-9A-Za-z])(?:0x[0-9A-Fa-f]{2}[, ]{1,2}){8,}"
    r"|(?<![0-9A-Za-z])(?:[0-9A-Fa-f]{2} ){15,}[0-9A-Fa-f]{2}(?![0-9A-Za-z])"
    r"|data:[a-z]{2,20}/[a-z0-9.+-]{1,40};base64,"
)
HEADS = ("/9j/", "iVBORw0KGgo", "R0lGOD", "UklGR", "JVBERi0")
"""What JPEG, PNG, GIF, RIFF (so WebP) and PDF files begin with, in base64."""
DISTINCT = 6
"""Fewer different characters are a pattern or padding, not data."""


def encoded_runs(text: str) -> int:
    """How many runs of encoded data a plain text holds, in its own case."""
    runs = sum(map(_is_encoded, RUN.findall(text))) if len(text) >= HEX_DIGITS else 0
    if "\\x" in text or "%" in text or "0x" in text or "base64," in text or len(text) >= 47:
        runs += sum(any(letter in found for letter in "abcdefABCDEFx%") for found in ESCAPED.findall(text))
    return runs


def _is_encoded(run: str) -> bool:
    if len(set(run)) < DISTINCT:
        return False
    if HEX.fullmatch(run):
        return not run.isdecimal() and any(map(str.isdecimal, run))
    if len(run) >= BASE64_CHARACTERS and run.startswith(HEADS):
        return True
    if len(run) < BASE64_CHARACTERS or sum(map(run.count, JOINTS)) > JOINTS_SHARE * len(run):
        return False
    kinds = [LOWER * letter.islower() + UPPER * letter.isupper() + DIGIT * letter.isdecimal() for letter in run]
    changes = sum(one != other and (one, other) != (UPPER, LOWER) for one, other in pairwise(kinds) if one and other)
    return {LOWER, UPPER, DIGIT} <= set(kinds) and changes > CHANGES * len(run)

"""Makes any string safe to show: what a browser would obey, a reader gets to see.

Jinja escapes HTML; this is about what escaping leaves: control characters, bidirectional overrides that reorder the
text around them, invisible characters that hide text, lone surrogates that no file can hold, towers of accents, length.
"""

import re
from typing import Any

from markupsafe import Markup

_OBEYED = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f"  # control characters, without tab, line feed and carriage return
    "\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"  # invisible, bidi, separators
    "\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff"  # lone surrogates, non-characters
    "\U000e0000-\U000e0fff]"  # tags and variation selectors that carry hidden text
)
_ACCENTS = "[\u0300-\u036f\u0483-\u0489\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff\ufe20-\ufe2f]"
_TOWER = re.compile(f"({_ACCENTS}{{4}}){_ACCENTS}+")


def harmless(text: str) -> str:
    """`text` with each character that a browser would obey replaced by its name, such as `[U+202E]`."""
    plain = text.replace("\r\n", "\n").replace("\r", "\n")
    return _TOWER.sub(r"\1", _OBEYED.sub(lambda found: f"[U+{ord(found.group()):04X}]", plain))


def clip(text: str | None, limit: int) -> str:
    """One line of at most `limit` characters, harmless; an ellipsis marks a cut."""
    line = " ".join((text or "")[: 4 * limit].split())
    cut = harmless(line[:limit].rstrip()) + ("…" if len(line) > limit or len(text or "") > 4 * limit else "")
    return cut


def finalize(value: Any) -> Any:
    """What Jinja prints for an expression: strings harmless, our own markup as it is, None as nothing."""
    if value is None:
        return ""
    return harmless(value) if isinstance(value, str) and not isinstance(value, Markup) else value

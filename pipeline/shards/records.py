"""A table's row as the members of a sample: image, caption, and everything else as one JSON object."""

import base64
import datetime
import json
import math
from collections.abc import Callable, Iterable
from difflib import get_close_matches
from typing import Any

import xxhash

from pipeline.shards.rows import Row, content_hash
from schemas.errors import RecipeError

KEY_COLUMNS = ("key", "id", "uid", "__key__")

Member = tuple[str, bytes]
"""Suffix with its dot, and the bytes."""


def record_members(image: Member | None, caption: bytes | None, others: dict[str, Any]) -> list[Member]:
    """The members of a row: image, `.txt` with the caption, `.json` with the other columns (sorted keys, UTF-8)."""
    members = [] if image is None else [image]
    if caption is not None:
        members.append((".txt", caption))
    if others:
        text = json.dumps(plain(others), sort_keys=True, ensure_ascii=False, allow_nan=False)
        members.append((".json", text.encode(errors="backslashreplace")))
    return members


def fill_hashes(row: Row, members: list[Member], image: bytes | None) -> None:
    """Set image, image hash and content hash; the content is what an export of the row would write."""
    row.image = image
    row.image_hash = None if image is None else xxhash.xxh3_128_hexdigest(image)
    row.content_hash = content_hash(
        (suffix[1:], len(content), xxhash.xxh3_128_hexdigest(content)) for suffix, content in members
    )


def plain(value: Any) -> Any:
    """What JSON can hold: bytes as base64, times as ISO 8601, NaN and infinity as null, the rest by its text."""
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return _as_text(value)


def _as_text(value: Any) -> str:
    forms: Iterable[tuple[Any, Callable[[Any], str]]] = (
        (bytes, lambda content: base64.b64encode(content).decode()),
        ((datetime.date, datetime.time), lambda moment: moment.isoformat()),
    )
    return next((form(value) for kind, form in forms if isinstance(value, kind)), str(value))


def require_column(name: str, columns: Iterable[str], where: str, setting: str) -> None:
    """Refuse a column that is not there.

    Raises:
        RecipeError: with the nearest names, or all of them.
    """
    known = sorted(columns)
    if name in known:
        return
    close = get_close_matches(name, known, 3, 0.5)
    hint = f"did you mean {' or '.join(map(repr, close))}?" if close else f"it has {', '.join(known) or 'none'}"
    raise RecipeError(f"{where} has no column {name!r} (`{setting}: {name}`); {hint}")

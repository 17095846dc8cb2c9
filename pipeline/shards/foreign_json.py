"""JSON from strangers: parsed as far as every later step can follow."""

import json
from typing import Any

MOST_NESTED = 100
"""Containers inside each other. What parses beyond that depends on how deep the caller's own stack is."""


def parse_json(document: bytes | str) -> Any:
    """The document's value.

    Raises:
        ValueError: it is no JSON, is nested deeper than `MOST_NESTED`, or holds a number of thousands of digits.
    """
    try:
        value = json.loads(_text(document))
    except RecursionError as error:
        raise ValueError("nested deeper than the parser goes") from error
    # No document is nested deeper than it opens brackets; hardly one opens so many that it has to be walked.
    if _brackets(document) > MOST_NESTED and _depth(value) > MOST_NESTED:
        raise ValueError(f"nested deeper than {MOST_NESTED}")
    return value


def _text(document: bytes | str) -> bytes | str:
    """As `json.loads` would decode it, without its search for UTF-16 and UTF-32 where they cannot be."""
    if isinstance(document, bytes) and document[:1] == b"{" and document[1:2] > b"\0":
        return document.decode(errors="surrogatepass")
    return document


def _brackets(document: bytes | str) -> int:
    """At least as many as there are."""
    if isinstance(document, str):
        return document.count("[") + document.count("{")
    return document.count(b"[") + document.count(b"{")


def _depth(value: Any) -> int:
    """Containers inside each other; at most one more than `MOST_NESTED`."""
    layer = [value] if isinstance(value, (dict, list)) else []
    depth = 0
    while layer and depth <= MOST_NESTED:
        depth += 1
        inside = (list(one.values()) if isinstance(one, dict) else one for one in layer)
        layer = [child for children in inside for child in children if isinstance(child, (dict, list))]
    return depth

"""JSON from strangers: parsed as far as every later step can follow."""

import json
from typing import Any

import orjson

MOST_NESTED = 100
"""Containers inside each other. What parses beyond that depends on how deep the caller's own stack is."""
MOST_DIGITS = 4300
"""Of an integer: more are refused by the standard library, since they take it too long."""


def parse_json(document: bytes | str, *, exact: bool = True) -> Any:
    """The document's value, as the standard library's parser gives it.

    Args:
        document: text, or its bytes.
        exact: False where no number matters: integers beyond 64 bits may come as floats, which is faster.

    Raises:
        ValueError: it is no JSON, is nested deeper than `MOST_NESTED`, or holds a number of thousands of digits.
    """
    value = _exactly(document) if exact or len(document) > MOST_DIGITS else _quickly(document)
    # No document is nested deeper than it is long or opens brackets; hardly one opens so many that it has to be walked.
    if len(document) > MOST_NESTED and _brackets(document) > MOST_NESTED and _depth(value) > MOST_NESTED:
        raise ValueError(f"nested deeper than {MOST_NESTED}")
    return value


def _quickly(document: bytes | str) -> Any:
    try:
        return orjson.loads(document)
    except orjson.JSONDecodeError:  # it is stricter: no NaN, no lone surrogate, nothing but UTF-8
        return _exactly(document)


def _exactly(document: bytes | str) -> Any:
    try:
        return json.loads(document)
    except RecursionError as error:
        raise ValueError("nested deeper than the parser goes") from error


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

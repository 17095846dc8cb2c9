"""Patterns become paths: globs, brace ranges and URLs of any fsspec filesystem."""

import glob
import os
import re
from collections.abc import Iterator
from itertools import islice
from typing import Any

from schemas.errors import RecipeError

MOST_PATHS = 10_000_000
RANGE = re.compile(r"(-?\d+)\.\.(-?\d+)")


def expand(pattern: str | tuple[str, ...]) -> list[str]:
    """Every path or URL that a pattern, or any of several, names; sorted, each once.

    `*`, `?`, `[a-z]` and `**` are globs, `{00000..00009}` and `{a,b}` are braces; a file that is literally
    named like the pattern comes first. `file://` URLs become local paths.

    Raises:
        RecipeError: a pattern found nothing, or a path without wildcard does not exist.
    """
    patterns = (pattern,) if isinstance(pattern, str) else pattern
    found: set[str] = set()
    for one in patterns:
        found.update(_matches(local_path(one)))
    if not found:
        raise RecipeError("no pattern given; name at least one path, glob, brace range or URL")
    return sorted(found)


def is_url(path: str) -> bool:
    """Whether a path goes through fsspec; local paths are opened directly."""
    return "://" in path


def local_path(path: str) -> str:
    """`file:///a/b` (or `local:`) as `/a/b`; anything else as it is."""
    return path.removeprefix("file://").removeprefix("local://")


def _matches(pattern: str) -> Iterator[str]:
    if not is_url(pattern) and os.path.lexists(pattern):
        yield pattern
        return
    spelled = list(islice(braces(pattern), MOST_PATHS + 1))
    if len(spelled) > MOST_PATHS:
        raise _too_many(pattern)
    for one in spelled:
        paths = _remote(one) if is_url(one) else _local(one)
        if not paths and len(spelled) > 1:
            raise RecipeError(f"{pattern!r} includes {one!r}, which does not exist; list what is there, or use a glob")
        if not paths:
            raise RecipeError(f"{one!r} {_nothing(one)}")
        yield from paths


def _too_many(pattern: str) -> RecipeError:
    return RecipeError(f"{pattern!r} spells out more than {MOST_PATHS} paths; narrow its brace ranges")


def _nothing(path: str) -> str:
    if glob.has_magic(path):
        return "matches no file; check the folder and the extension in the pattern"
    return "does not exist; expected a shard there (a path, glob, brace range or URL)"


def _local(pattern: str) -> list[str]:
    if not glob.has_magic(pattern):
        return [pattern] if os.path.lexists(pattern) else []
    return glob.glob(pattern, recursive=True)


def _remote(pattern: str) -> list[str]:
    filesystem, path = filesystem_of(pattern)
    try:
        if glob.has_magic(pattern):
            return [filesystem.unstrip_protocol(one) for one in filesystem.glob(path)]
        return [pattern] if filesystem.exists(path) else []
    except OSError as error:
        raise RecipeError(f"{pattern!r} could not be listed: {error}; check the address and your access") from error


def filesystem_of(url: str) -> tuple[Any, str]:
    """The fsspec filesystem of a URL and the path inside it.

    Raises:
        RecipeError: the protocol is unknown, or its library is not installed.
    """
    import fsspec

    try:
        filesystem, path = fsspec.core.url_to_fs(url)
    except (ValueError, ImportError) as error:
        raise RecipeError(f"{url!r} cannot be opened: {error}") from error
    return filesystem, path


def braces(pattern: str) -> Iterator[str]:
    """`a{00..02}{x,y}` spelled out, leftmost brace slowest; a brace that is neither range nor list stands as it is."""
    span = _first_brace(pattern)
    if span is None:
        yield pattern
        return
    start, stop = span
    for choice in _choices(pattern[start + 1 : stop]):
        for rest in braces(pattern[stop + 1 :]):
            yield pattern[:start] + choice + rest


def _first_brace(pattern: str) -> tuple[int, int] | None:
    for start in (place for place, char in enumerate(pattern) if char == "{"):
        stop = _closing(pattern, start)
        if stop is not None and (RANGE.fullmatch(body := pattern[start + 1 : stop]) or len(_parts(body)) > 1):
            return start, stop
    return None


def _closing(pattern: str, start: int) -> int | None:
    depth = 0
    for place in range(start, len(pattern)):
        depth += {"{": 1, "}": -1}.get(pattern[place], 0)
        if depth == 0:
            return place
    return None


def _parts(body: str) -> list[str]:
    """`a,{b,c}` split at its outer commas."""
    parts, depth = [""], 0
    for char in body:
        depth += {"{": 1, "}": -1}.get(char, 0)
        if char == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += char
    return parts


def _choices(body: str) -> Iterator[str]:
    numbers = RANGE.fullmatch(body)
    if numbers is None:
        for part in _parts(body):
            yield from braces(part)
        return
    first, last = int(numbers[1]), int(numbers[2])
    if abs(last - first) >= MOST_PATHS:
        raise _too_many(f"{{{body}}}")
    padded = any(len(text.lstrip("-")) > 1 and text.lstrip("-").startswith("0") for text in numbers.groups())
    width = max(len(text) for text in numbers.groups()) if padded else 0
    step = 1 if last >= first else -1
    for number in range(first, last + step, step):
        yield f"{number:0{width}d}" if width else str(number)

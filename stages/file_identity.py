"""A file is known by its content: its path, its name and its time are never part of what addresses a result."""

import hashlib
import os
from functools import cache
from pathlib import Path
from typing import Annotated


class PathMark:
    """Marks a setting as one that may name a file or folder."""


Located = Annotated[str, PathMark()]
"""A setting that names a file or folder, or something else: a tag, a model of the hub. Where something of that name is
found beside the recipe, a stage gets its absolute path."""


def file_identity(file: Path) -> str:
    """SHA-256 of a file, 64 hex digits; read again only when its size or time changed.

    Raises:
        OSError: it cannot be read.
    """
    facts = os.stat(file)
    return _digest(str(file), facts.st_size, facts.st_mtime_ns)


@cache
def _digest(path: str, size: int, modified_ns: int) -> str:
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()

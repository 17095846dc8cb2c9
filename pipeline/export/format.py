"""What an output format is: how one output shard is written, and what stands beside all of them."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol


@dataclass(frozen=True)
class Sample:
    """One exported sample."""

    key: str
    """`UID` or `UID-REPEAT`."""
    members: list[tuple[str, bytes]]
    """(suffix without its dot, bytes), sorted by suffix; the source's bytes."""
    scores: dict[str, Any]
    """The recipe's `export.columns`, floats at 9 significant digits."""


class Format(Protocol):
    """One output format. What it writes depends on the samples alone: no time, host, path or worker."""

    ending: ClassVar[str]
    """Of an output shard's name, dot included."""

    def write(self, path: Path, samples: Iterator[Sample]) -> str:
        """Write one output shard to `path` and return the SHA-256 of its bytes, in hex."""
        ...

    def beside(self, folder: Path, name: str, shards: list[dict[str, Any]]) -> None:
        """Write what the format's readers need beside the shards.

        Args:
            folder: where the shards lie.
            name: the recipe's.
            shards: in order, each with `url`, `nsamples`, `filesize` (bytes) and `sha256`.
        """
        ...

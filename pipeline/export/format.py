"""What an output format is: how one output shard is written, and what stands beside all of them."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import pyarrow as pa

from pipeline.export.direct import Create

if TYPE_CHECKING:
    from pipeline.export.block import Block


@dataclass(frozen=True)
class Sample:
    """One exported sample."""

    key: str
    """`UID` or `UID-REPEAT`."""
    members: list[tuple[str, bytes]]
    """(suffix without its dot, bytes), sorted by suffix; the source's bytes."""
    scores: dict[str, Any]
    """The recipe's `export.columns`, floats at 9 significant digits."""


@dataclass(frozen=True)
class Layout:
    """What the samples of one export may hold; the same for every shard of it."""

    suffixes: tuple[tuple[str, ...], ...]
    """Every combination of member suffixes that occurs, each sorted, sorted."""
    scores: pa.Schema
    """The recipe's `export.columns` as they are declared."""


@dataclass(frozen=True)
class Format(ABC):
    """One output format. What it writes depends on the samples alone: no time, host, path or worker."""

    layout: Layout

    title: ClassVar[str]
    """Its name for people."""
    names: ClassVar[str]
    """Output shards, as a template: `folder` ("" or "SPLIT/"), `split` (or "train"), `number` and `count`."""
    reading: ClassVar[str]
    """What the data card says on how to read it."""

    @abstractmethod
    def write(self, path: Path, samples: Iterator[Sample], count: int) -> str:
        """Write one output shard of `count` samples to `path` and return the SHA-256 of its bytes, in hex."""

    def write_blocks(self, path: Path, blocks: "Iterator[Block]", count: int, create: Create) -> str:
        """The same from samples in memory; what goes to a file that `create` gives may be written later."""
        return self.write(path, (sample for block in blocks for sample in block.samples()), count)

    def annotate(self, written: Path, shard: Path) -> None:  # noqa: B027 (most formats need nothing here)
        """In the worker: write what belongs to one shard, before `written` takes its place at `shard`."""

    def beside(self, folder: Path, name: str, shards: list[dict[str, Any]]) -> None:  # noqa: B027
        """Write what the format's readers need beside the shards.

        Args:
            folder: where the shards lie.
            name: the recipe's.
            shards: in order, each with `url` (relative to `folder`), `split` ("" without a split), `nsamples`,
                `filesize` (bytes) and `sha256`.
        """

    def front_matter(self, manifest: dict[str, Any]) -> str:
        """What stands at the head of the data card."""
        return ""


def by_split(shards: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """The shards of each split, in order."""
    parts: dict[str, list[dict[str, Any]]] = {}
    for shard in shards:
        parts.setdefault(shard["split"], []).append(shard)
    return parts


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()

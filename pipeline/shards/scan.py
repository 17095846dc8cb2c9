"""The first sight of a shard: one sequential pass that digests, indexes and hands out slices."""

from collections.abc import Iterator
from typing import Protocol

from pipeline.shards.arrow_rows import ArrowRows
from pipeline.shards.container import Container
from pipeline.shards.folder_rows import FolderRows
from pipeline.shards.parquet_rows import ParquetRows
from pipeline.shards.rows import Row, Slice, cut
from pipeline.shards.tar_rows import TarRows
from schemas.errors import ContractError

__all__ = ["ShardScan", "Slice"]


class Rows(Protocol):
    """One pass over a container of some format."""

    digest: str
    """SHA-256 in hex, once the pass is over."""
    total: int
    """What the rows' ranges have to add up to, with what follows the last one: bytes, or rows."""

    def __iter__(self) -> Iterator[Row]:
        """The rows in order."""
        ...


class ShardScan:
    """One pass over a shard. Iterate it to the end, then ask for `digest`, `samples`, `size`, `trailer_bytes`.

    Where slices end depends on the container's bytes, `slice_bytes` and `slice_rows` alone. At most one slice and
    one sample are in memory.
    """

    def __init__(self, container: Container, slice_bytes: int, slice_rows: int, *, images: bool = True) -> None:
        """Without `images` the slices come without them, cut as if they were there."""
        self.container = container
        self.images = images
        self.slice_bytes = slice_bytes
        self.slice_rows = slice_rows
        self.digest = ""
        """SHA-256 in hex of the container: the file's bytes, and (path, image) of every line with one beside it."""
        self.samples = 0
        """Rows handed out, quarantined ones included."""
        self.size = 0
        """What was accounted for: bytes of the uncompressed tar, rows of Parquet or Arrow, lines of a table."""
        self.trailer_bytes = 0
        """Of `size`, what follows the last row: a tar's end-of-archive blocks."""

    def __iter__(self) -> Iterator[Slice]:
        """Slices in order.

        Raises:
            ShardError: nothing can be read at all, or the disk or network fails in the middle.
            RecipeError: a column the container does not have, with the nearest names.
            ContractError: the rows' ranges do not add up to the container.
        """
        rows = rows_of(self.container)
        yield from cut(self._accounted(rows), self.slice_bytes, self.slice_rows, images=self.images)
        self.digest = rows.digest

    def _accounted(self, rows: Rows) -> Iterator[Row]:
        border = 0
        for row in rows:
            if row.start != border or row.stop < row.start:
                raise ContractError(
                    f"{self.container.path}: row {self.samples} is [{row.start}, {row.stop}), not from {border}"
                )
            border = row.stop
            self.samples += 1
            yield row
        self.size, self.trailer_bytes = rows.total, rows.total - border
        if self.trailer_bytes < 0 or (self.trailer_bytes and not isinstance(rows, TarRows)):
            raise ContractError(f"{self.container.path}: rows account for {border} of {rows.total}")


def rows_of(container: Container) -> Rows:
    """The pass that fits a container's format."""
    readers: dict[str, type[FolderRows] | type[ParquetRows] | type[ArrowRows]]
    readers = {"folder": FolderRows, "parquet": ParquetRows, "arrow": ArrowRows}
    return readers.get(container.format, TarRows)(container)

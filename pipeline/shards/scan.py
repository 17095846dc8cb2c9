"""The first sight of a shard: one sequential pass that digests, indexes and hands out slices."""

from collections.abc import Iterator
from operator import gt
from typing import Protocol

from pipeline.shards.arrow_rows import ArrowRows
from pipeline.shards.container import Container
from pipeline.shards.folder_rows import FolderRows
from pipeline.shards.parquet_rows import ParquetRows
from pipeline.shards.rows import Row, RowBatch
from pipeline.shards.slices import Slice, cut
from pipeline.shards.tar_rows import TarRows
from schemas.errors import ContractError

__all__ = ["ShardScan", "Slice"]


class Rows(Protocol):
    """One pass over a container of some format."""

    digest: str
    """BLAKE3 in hex, once the pass is over."""
    total: int
    """What the rows' ranges have to add up to, with what follows the last one: bytes, or rows."""

    def __iter__(self) -> Iterator[Row | RowBatch]:
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
        """BLAKE3 in hex of the container: the file's bytes, and (path, image) of every line with one beside it."""
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

    def _accounted(self, rows: Rows) -> Iterator[Row | RowBatch]:
        border = 0
        for row in rows:
            starts, stops = (row.starts, row.stops) if isinstance(row, RowBatch) else ([row.start], [row.stop])
            if starts != [border, *stops[:-1]] or any(map(gt, starts, stops)):
                raise ContractError(
                    f"{self.container.path}: rows from {self.samples} on begin at {starts[:3]} and end at {stops[:3]}, "
                    f"not one behind the other from {border}"
                )
            border = stops[-1]
            self.samples += len(starts)
            yield row
        self.size, self.trailer_bytes = rows.total, rows.total - border
        if self.trailer_bytes < 0 or (self.trailer_bytes and not isinstance(rows, TarRows)):
            raise ContractError(f"{self.container.path}: rows account for {border} of {rows.total}")


def rows_of(container: Container) -> Rows:
    """The pass that fits a container's format."""
    readers: dict[str, type[FolderRows] | type[ParquetRows] | type[ArrowRows]]
    readers = {"folder": FolderRows, "parquet": ParquetRows, "arrow": ArrowRows}
    return readers.get(container.format, TarRows)(container)

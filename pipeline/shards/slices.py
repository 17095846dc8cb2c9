"""Rows gathered into slices: what a scan hands out."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.shards.rows import Row, RowBatch
from schemas.tables import INDEX, MEMBER

COLUMNS = (
    ("key", "key", "keys"),
    ("caption", "caption", "captions"),
    ("image_member", "image_member", "image_members"),
    ("start", "start", "starts"),
    ("stop", "stop", "stops"),
    ("image_hash", "image_hash", "image_hashes"),
    ("content_hash", "content_hash", "content_hashes"),
    ("index_reason", "reason", "reasons"),
)
"""Of the index, all but the members: its name, and that of a `Row`'s and of a `RowBatch`'s values."""


@dataclass
class Slice:
    """A contiguous run of samples of one shard."""

    index: pa.Table
    """Columns as `schemas.tables.INDEX`."""
    images: pa.Array
    """large_binary, row for row with the index; null exactly where `image_hash` is, or everywhere if not asked for."""
    image_bytes: int
    first_row: int


def cut(rows: Iterable[Row | RowBatch], slice_bytes: int, slice_rows: int, *, images: bool = True) -> Iterator[Slice]:
    """Rows gathered into slices: one ends when images and text exceed `slice_bytes`, or at `slice_rows` rows.

    Without `images` they are counted and let go of at once.
    """
    held = _Held(0, images)
    for batch in rows:
        if isinstance(batch, RowBatch) and held.extend(batch, slice_bytes, slice_rows):
            continue
        for row in batch.rows() if isinstance(batch, RowBatch) else (batch,):
            held.add(row)
            if held.size > slice_bytes or held.count == slice_rows:
                piece, held = held.slice(), _Held(held.first + held.count, images)
                yield piece
                del piece  # the next slice is gathered without this one in memory
    if held.count:
        yield held.slice()


class _Held:
    """Columns of the rows of a slice as they come."""

    def __init__(self, first: int, images: bool) -> None:
        self.first = first
        self.size = self.count = self.image_bytes = 0
        self._columns: dict[str, list[Any]] = {column: [] for column, _, _ in COLUMNS}
        self._borders = [0]
        self._members: tuple[list[Any], ...] = ([], [], [])
        """Names, offsets, sizes."""
        self._images: list[bytes | None] | None = [] if images else None

    def add(self, row: Row) -> None:
        """Take one row in."""
        for column, name, _ in COLUMNS:
            self._columns[column].append(getattr(row, name))
        for member in row.members:
            for place, values in enumerate(self._members):
                values.append(member[place])
        self._borders.append(self._borders[-1] + len(row.members))
        self._add_images([row.image])
        self.size += row.held_bytes
        self.count += 1

    def extend(self, batch: RowBatch, slice_bytes: int, slice_rows: int) -> bool:
        """Take many rows in, unless a slice ends with one of them; whether they were."""
        size = self.size + batch.held_bytes()
        if size > slice_bytes or self.count + len(batch.keys) >= slice_rows:
            return False
        for column, _, name in COLUMNS:
            self._columns[column] += getattr(batch, name)
        members: tuple[Sequence[Any], ...] = (batch.names, batch.offsets, batch.sizes)
        for values, more in zip(self._members, members, strict=True):
            values += more
        before = self._borders[-1]
        self._borders += range(before + batch.members, before + len(batch.names) + 1, batch.members)
        self._add_images(batch.images)
        self.size = size
        self.count += len(batch.keys)
        return True

    def _add_images(self, images: Sequence[bytes | memoryview | None]) -> None:
        self.image_bytes += sum(map(len, filter(None, images)))
        if self._images is not None:
            self._images += [None if image is None else bytes(image) for image in images]

    def slice(self) -> Slice:
        """All of them."""
        fields = [pa.array(values, MEMBER[place].type) for place, values in enumerate(self._members)]
        members = pa.ListArray.from_arrays(
            pa.array(self._borders, pa.int32()),
            pa.StructArray.from_arrays(fields, fields=list(MEMBER)),
            INDEX.field("members").type,
        )
        columns = {**self._columns, "members": members}
        index = pa.table([columns[name] for name in INDEX.names], INDEX)
        images = pa.nulls(self.count, pa.large_binary()) if self._images is None else image_array(self._images)
        return Slice(index, images, self.image_bytes, self.first)


def image_array(images: Sequence[bytes | memoryview | None]) -> pa.Array:
    """Images as large_binary, in one allocation of their size: growing by doubling would take twice the memory."""
    sizes = [len(image or b"") for image in images]
    offsets = np.cumsum([0, *sizes], dtype=np.int64)
    there = pa.array([image is not None for image in images], pa.bool_()).buffers()[1] if None in images else None
    content = pa.py_buffer(b"".join(image for image in images if image))
    return pa.Array.from_buffers(pa.large_binary(), len(images), [there, pa.py_buffer(offsets), content])

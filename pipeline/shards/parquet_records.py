"""Rows of a Parquet file as records, streamed batch by batch: never a whole file or row group in memory."""

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.shards.container import Container
from pipeline.shards.records import KEY_COLUMNS, Member, record_members
from pipeline.shards.rows import image_suffix
from pipeline.shards.streams import open_bytes
from schemas.errors import ShardError

BATCH_ROWS = 64
ARROW_FAILS = (pa.ArrowException, OSError, UnicodeDecodeError, OverflowError, MemoryError)
"""What Arrow raises on damaged files."""


@dataclass(frozen=True)
class Record:
    """A row as read: its number in the file and its parts."""

    number: int
    key: str
    image: bytes | None
    caption: bytes | None
    others: dict[str, Any]

    def members(self) -> list[Member]:
        """What an export of the row writes."""
        image = None if self.image is None else (f".{image_suffix(self.image)}", self.image)
        return record_members(image, self.caption, self.others)


@contextmanager
def parquet_file(source: BinaryIO, path: str) -> Iterator[pq.ParquetFile]:
    """Arrow's reader over an open file.

    Raises:
        ShardError: `unreadable_shard`, the bytes are no Parquet; `read_failed`.
    """
    try:
        with _disk_apart(path):
            file = pq.ParquetFile(source, pre_buffer=False, buffer_size=1 << 20)
    except ARROW_FAILS as error:
        raise ShardError(f"{path} is no readable Parquet file: {error}", "unreadable_shard") from error
    with file:
        yield file


@contextmanager
def _disk_apart(path: str) -> Iterator[None]:
    """Arrow reports damage as OSError too; only errors of disk or network have a number."""
    try:
        yield
    except OSError as error:
        if error.errno is None:
            raise
        raise ShardError(f"{path}: reading failed: {error}", "read_failed") from error


@contextmanager
def open_parquet(path: str) -> Iterator[pq.ParquetFile]:
    """A Parquet file for reading again.

    Raises:
        ShardError: it cannot be opened or is no Parquet.
    """
    with open_bytes(path) as source, parquet_file(source, path) as file:
        yield file


def records(
    file: pq.ParquetFile, container: Container, group: int, first: int, columns: list[str] | None = None
) -> Iterator[Record]:
    """The rows of one row group; `first` is the number of its first row, `columns` restricts what is read."""
    digits = len(str(file.metadata.num_rows))
    with _disk_apart(container.path):
        for batch in file.iter_batches(BATCH_ROWS, [group], columns, use_threads=False):
            for number, values in enumerate(_values(batch), start=first):
                yield _record(values, number, digits, container)
            first += len(batch)


def _values(batch: pa.RecordBatch) -> Iterator[dict[str, Any]]:
    columns = [_unpacked(column) for column in batch.columns]
    return (dict(zip(batch.schema.names, row, strict=True)) for row in zip(*columns, strict=True))


def _unpacked(column: pa.Array) -> list[Any]:
    """A column as Python values; text stays bytes until it is known to be UTF-8."""
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if is_text(column.type):
        column = column.cast(pa.large_binary())
        return [None if value is None else _Text(value) for value in column.to_pylist()]
    values: list[Any] = column.to_pylist()
    return values


class _Text(bytes):
    """A string's bytes, not yet known to be UTF-8."""


def _record(values: dict[str, Any], number: int, digits: int, container: Container) -> Record:
    image, caption = values.pop(container.image, None), values.pop(container.caption, None)
    if isinstance(image, dict):
        # The layout of Hugging Face datasets: the bytes, and the name the file had.
        rest = {name: value for name, value in image.items() if name != "bytes" and value is not None}
        values |= {container.image: rest} if rest else {}
        image = image.get("bytes")
    others = {
        name: value.decode(errors="backslashreplace") if isinstance(value, _Text) else value
        for name, value in values.items()
    }
    named = next((others[name] for name in KEY_COLUMNS if others.get(name) is not None), None)
    key = f"{number:0{digits}d}" if named is None else str(named)
    return Record(number, key, image, None if caption is None else bytes(caption), others)


def is_bytes(dtype: pa.DataType) -> bool:
    """Whether a type holds bytes."""
    kinds = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view, pa.types.is_fixed_size_binary)
    return any(kind(dtype) for kind in kinds)


def is_text(dtype: pa.DataType) -> bool:
    """Whether a type holds text, dictionaries included."""
    if pa.types.is_dictionary(dtype):
        return is_text(dtype.value_type)
    return any(kind(dtype) for kind in (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view))


def wanted_records(container: Container, numbers: Sequence[int], columns: list[str] | None) -> Iterator[Record]:
    """The rows with these ascending numbers; only row groups that hold one are read.

    Raises:
        ShardError: a row cannot be read any more (`shard_changed`).
    """
    with open_parquet(container.path) as file:
        first = found = 0
        for group in range(file.num_row_groups):
            stop = first + file.metadata.row_group(group).num_rows
            inside = set(numbers[found : bisect_left(numbers, stop)])
            found += len(inside)
            try:
                # Read to the last wanted row only.
                yield from _until(records(file, container, group, first, columns), inside)
            except ARROW_FAILS as error:
                raise _changed(container, str(error)) from error
            first = stop
    if found < len(numbers):
        raise _changed(container, f"row {numbers[found]} is not there")


def _until(source: Iterator[Record], numbers: set[int]) -> Iterator[Record]:
    left = len(numbers)
    while left and (record := next(source, None)) is not None:
        if record.number in numbers:
            left -= 1
            yield record


def _changed(container: Container, what: str) -> ShardError:
    return ShardError(f"{container.path} changed since it was indexed: {what}; run again", "shard_changed")

"""Rows of a Parquet file as records, streamed batch by batch: never a whole file or row group in memory."""

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.shards.batch_records import (
    ARROW_FAILS,
    BATCH_ROWS,
    Record,
    batch_records,
    decode_names,
    is_text,
    text_bytes,
    until_last,
)
from pipeline.shards.container import Container
from pipeline.shards.streams import open_bytes
from schemas.errors import ShardError


@contextmanager
def parquet_file(source: BinaryIO, path: str) -> Iterator[pq.ParquetFile]:
    """Arrow's reader over an open file.

    Raises:
        ShardError: `unreadable_shard`, the bytes are no Parquet; `read_failed`.
    """
    try:
        with _disk_apart(path):
            file = pq.ParquetFile(source, pre_buffer=False, buffer_size=1 << 20)
            decode_names(file.schema_arrow)
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
            yield from batch_records(batch, container, first, digits)
            first += len(batch)


def read_schema(container: Container) -> pa.Schema:
    """The columns of a file.

    Raises:
        ShardError: it cannot be opened or is no Parquet.
    """
    with open_parquet(container.path) as file:
        return file.schema_arrow


def listed_paths(container: Container, most: int | None = None) -> list[str]:
    """The distinct values of a column with image paths, sorted, of the first `most` rows; damage ends the list.

    Raises:
        ShardError: the file cannot be opened or is no Parquet.
    """
    found: set[str] = set()
    with open_parquet(container.path) as file, suppress(*ARROW_FAILS):
        schema = file.schema_arrow
        if schema.names.count(container.image) != 1 or not is_text(schema.field(container.image).type):
            return []
        for batch in file.iter_batches(most or 1 << 16, columns=[container.image], use_threads=False):
            found |= {text.decode(errors="surrogateescape") for text in text_bytes(batch.column(0)) if text}
            if most is not None:
                break
    return sorted(found)


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
                yield from until_last(records(file, container, group, first, columns), inside)
            except ARROW_FAILS as error:
                raise _changed(container, str(error)) from error
            first = stop
    if found < len(numbers):
        raise _changed(container, f"row {numbers[found]} is not there")


def _changed(container: Container, what: str) -> ShardError:
    return ShardError(f"{container.path} changed since it was indexed: {what}; run again", "shard_changed")

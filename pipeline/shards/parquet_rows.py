"""Parquet with image bytes: rows are streamed batch by batch, never a whole file or row group in memory."""

import tempfile
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.shards.container import Container
from pipeline.shards.expand import is_url
from pipeline.shards.records import KEY_COLUMNS, Member, fill_hashes, record_members, require_column
from pipeline.shards.rows import Row, image_suffix, read_caption
from pipeline.shards.streams import digest_file, open_bytes
from schemas.errors import RecipeError, ShardError

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


class ParquetRows:
    """One pass over a Parquet file: iterate the rows, then ask for the digest."""

    def __init__(self, container: Container) -> None:
        self.container = container
        self.digest = ""
        self.total = 0
        """Rows of the file, by its footer."""

    def __iter__(self) -> Iterator[Row]:
        """Rows in order; where a row group is damaged, one row for what of it cannot be read.

        Raises:
            ShardError: nothing can be read at all.
            RecipeError: a column that is not there, or of a type that holds no image or caption.
        """
        path = self.container.path
        # A footer is read last and a digest front to back: a remote file is fetched once, into a temporary one.
        with tempfile.TemporaryFile() as copy:
            self.digest, size = digest_file(path, copy if is_url(path) else None)
            if not size:
                raise ShardError(f"{path} holds no bytes; expected Parquet", "empty_shard")
            with _local(path, copy) as source, _opened(source, path) as file:
                checked_schema(file.schema_arrow, self.container)
                self.total = file.metadata.num_rows
                yield from self._rows(file)

    def _rows(self, file: pq.ParquetFile) -> Iterator[Row]:
        done = 0
        for group in range(file.num_row_groups):
            stop = done + file.metadata.row_group(group).num_rows
            try:
                for record in records(file, self.container, group, done):
                    yield indexed(record, self.container)
                    done = record.number + 1
            except ARROW_FAILS:
                yield Row(done, stop, reason="broken_row_group")
            done = stop


@contextmanager
def _local(path: str, copy: BinaryIO) -> Iterator[BinaryIO]:
    if is_url(path):
        copy.seek(0)
        yield copy
        return
    with open_bytes(path) as stream:
        yield stream


@contextmanager
def _opened(source: BinaryIO, path: str) -> Iterator[pq.ParquetFile]:
    try:
        file = pq.ParquetFile(source, pre_buffer=False, buffer_size=1 << 20)
    except ARROW_FAILS as error:
        raise ShardError(f"{path} is no readable Parquet file: {error}", "unreadable_shard") from error
    with file:
        yield file


@contextmanager
def open_parquet(path: str) -> Iterator[pq.ParquetFile]:
    """A Parquet file for reading again.

    Raises:
        ShardError: it cannot be opened or is no Parquet.
    """
    with open_bytes(path) as source, _opened(source, path) as file:
        yield file


def check_schema(container: Container) -> None:
    """Hold a file's columns against what the container names.

    Raises:
        ShardError: the file cannot be read.
        RecipeError: see `checked_schema`.
    """
    with open_parquet(container.path) as file:
        checked_schema(file.schema_arrow, container)


def checked_schema(schema: pa.Schema, container: Container) -> None:
    """Hold a schema against what the container names.

    Raises:
        RecipeError: a missing column, with the nearest names, or a type that holds no image or caption.
    """
    for name, setting in ((container.image, "image"), (container.caption, "caption")):
        require_column(name, schema.names, container.path, setting)
    image, caption = schema.field(container.image).type, schema.field(container.caption).type
    if pa.types.is_struct(image):
        image = image.field("bytes").type if image.get_field_index("bytes") >= 0 else image
    if not _is_bytes(image):
        hint = (
            "a table of URLs is downloaded first, e.g. with img2dataset" if _is_text(image) else "name another column"
        )
        raise RecipeError(
            f"{container.path}: image column {container.image!r} is {image}; expected image bytes: {hint}"
        )
    if not (_is_text(caption) or _is_bytes(caption)):
        raise RecipeError(f"{container.path}: caption column {container.caption!r} is {caption}; expected text")


def _is_bytes(dtype: pa.DataType) -> bool:
    kinds = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view, pa.types.is_fixed_size_binary)
    return any(kind(dtype) for kind in kinds)


def _is_text(dtype: pa.DataType) -> bool:
    if pa.types.is_dictionary(dtype):
        return _is_text(dtype.value_type)
    return any(kind(dtype) for kind in (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view))


def records(
    file: pq.ParquetFile, container: Container, group: int, first: int, columns: list[str] | None = None
) -> Iterator[Record]:
    """The rows of one row group; `first` is the number of its first row, `columns` restricts what is read."""
    digits = len(str(file.metadata.num_rows))
    number = first
    for batch in file.iter_batches(BATCH_ROWS, [group], columns, use_threads=False):
        for values in _values(batch):
            yield _record(values, number, digits, container)
            number += 1


def _values(batch: pa.RecordBatch) -> Iterator[dict[str, Any]]:
    columns = [_unpacked(column) for column in batch.columns]
    return (dict(zip(batch.schema.names, row, strict=True)) for row in zip(*columns, strict=True))


def _unpacked(column: pa.Array) -> list[Any]:
    """A column as Python values; text stays bytes until it is known to be UTF-8."""
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if _is_text(column.type):
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


def indexed(record: Record, container: Container) -> Row:
    """A record's line of the index; member offsets are row numbers."""
    caption, caption_reason = read_caption(record.caption)
    row = Row(record.number, record.number + 1, record.key, caption)
    fill_hashes(row, record.members(), record.image)
    parts = ((container.image, record.image), (container.caption, record.caption))
    row.members = [(name, record.number, len(content)) for name, content in parts if content is not None]
    row.image_member = None if record.image is None else container.image
    row.reason = "missing_image" if record.image is None else caption_reason
    return row


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

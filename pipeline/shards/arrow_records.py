"""Batches of an Arrow IPC stream as records: one in memory at a time, none trusted before it is checked."""

import io
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import BinaryIO, cast

import pyarrow as pa

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
from pipeline.shards.beside import inside
from pipeline.shards.container import Container
from pipeline.shards.streams import BUFFER_BYTES, Digesting, open_bytes
from schemas.errors import ShardError

END = b"\xff\xff\xff\xff\0\0\0\0"
"""What closes a stream; without it, batches may be lost."""
KEY_DIGITS = 8
MOST_ROWS = 1 << 31


class Source:
    """Hands Arrow what it asks for and notes how the file ended."""

    def __init__(self, stream: BinaryIO) -> None:
        self.stream = stream
        self.last = b""
        """The last bytes read, up to 8."""
        self.is_cut = False
        """Whether more was asked for than there was."""
        self.closed = False

    def read(self, size: int) -> bytes:
        """Exactly `size` bytes, fewer only at the end."""
        chunk = self.stream.read(size)
        self.is_cut |= len(chunk) < size
        self.last = (self.last + chunk[-8:])[-8:]
        return chunk

    def close(self) -> None:
        """Arrow closes what it reads; the file is closed where it was opened."""


class Ending:
    """How the batches ended."""

    fault: Exception | None = None
    """What Arrow raised, if it did."""

    def reason(self, source: Source) -> str | None:
        """`truncated_shard` or `broken_archive`; None where the stream was closed and nothing follows."""
        if self.fault is None and source.last == END:
            return "broken_archive" if source.stream.read(1) else None
        return "truncated_shard" if source.is_cut else "broken_archive"


@contextmanager
def arrow_reader(source: Source, container: Container) -> Iterator[pa.RecordBatchReader]:
    """Arrow's reader over a file from its beginning.

    Raises:
        ShardError: `empty_shard`, or `unreadable_shard` for what is no Arrow stream.
    """
    try:
        reader = pa.ipc.open_stream(pa.PythonFile(source, mode="r"))
        decode_names(reader.schema)
    except ARROW_FAILS as error:
        if not source.last:
            raise ShardError(f"{container.path} holds no bytes; expected an Arrow stream", "empty_shard") from error
        raise ShardError(f"{container.path} is no readable Arrow stream: {error}", "unreadable_shard") from error
    with reader:
        yield reader


def batches(reader: pa.RecordBatchReader, ending: Ending) -> Iterator[pa.RecordBatch]:
    """The batches up to the end or the first that cannot be read, which is noted in `ending`."""
    while True:
        try:
            batch = reader.read_next_batch()
        except StopIteration:
            return
        except ARROW_FAILS as error:
            ending.fault = error
            return
        yield batch


def checked_records(batch: pa.RecordBatch, container: Container, first: int) -> Iterator[Record]:
    """The rows of a batch, which Arrow has read but not checked.

    Raises:
        ARROW_FAILS: a length or an offset that leads out of its buffer.
    """
    batch.validate()  # before anything is cut or viewed: Arrow ends the process at a negative length
    batch = pa.record_batch([_sound(column) for column in batch.columns], batch.schema.names)
    for start in range(0, batch.num_rows, BATCH_ROWS):
        yield from batch_records(batch.slice(start, BATCH_ROWS), container, first + start, KEY_DIGITS)


def length(batch: pa.RecordBatch) -> int:
    """Rows of a batch; one where its header is damaged and says what cannot be."""
    return batch.num_rows if 0 <= batch.num_rows <= MOST_ROWS else 1


def _sound(column: pa.Array) -> pa.Array:
    """A column that is safe to read; whether text is UTF-8 is each row's own affair."""
    column.view(_untold(column.type)).validate(full=True)
    return column


def _untold(dtype: pa.DataType) -> pa.DataType:
    """A type with bytes where it has text."""
    if pa.types.is_list(dtype):
        return pa.list_(_untold(dtype.value_type))
    if pa.types.is_struct(dtype):
        return pa.struct([pa.field(field.name, _untold(field.type), field.nullable) for field in dtype])
    return {pa.string(): pa.binary(), pa.large_string(): pa.large_binary()}.get(dtype, dtype)


def read_schema(container: Container) -> pa.Schema:
    """The columns of a stream.

    Raises:
        ShardError: it cannot be opened or is no Arrow stream.
    """
    with open_bytes(container.path) as stream, arrow_reader(Source(stream), container) as reader:
        return reader.schema


def listed_paths(container: Container, most: int | None = None) -> list[str]:
    """The distinct paths of images beside a local stream, sorted, of about `most` rows; damage ends the list.

    The file is mapped, so that the images inside are not read.

    Raises:
        ShardError: see `open_bytes`.
    """
    open_bytes(container.path).close()
    found: set[str] = set()
    with suppress(*ARROW_FAILS), pa.memory_map(container.path) as source:
        reader = pa.ipc.open_stream(source)
        for batch in reader if reader.schema.names.count(container.image) == 1 else ():
            batch.validate()
            found |= set(_paths(batch.column(container.image), container))
            if most is not None and len(found) >= most:
                break
    return sorted(found)


def _paths(column: pa.Array, container: Container) -> Iterator[str]:
    if is_text(column.type):
        yield from (text.decode(errors="surrogateescape") for text in text_bytes(_sound(column)) if text)
    elif pa.types.is_struct(column.type) and {"bytes", "path"} <= {field.name for field in column.type}:
        images, paths = column.field("bytes"), column.field("path")
        images.validate()
        alone = _sound(paths).filter(images.is_null())
        yield from (place for path in alone.to_pylist() if path and (place := inside(container.root, path)))


def wanted_records(container: Container, numbers: Sequence[int], columns: list[str] | None) -> Iterator[Record]:
    """The rows with these ascending numbers, in one pass up to the last of them.

    Raises:
        ShardError: a row cannot be read any more (`shard_changed`); the disk or network fails.
    """
    first = found = 0
    stream = io.BufferedReader(Digesting(open_bytes(container.path), container.path), BUFFER_BYTES)
    with stream, arrow_reader(Source(cast(BinaryIO, stream)), container) as reader:
        for batch in batches(reader, Ending()):
            stop = first + length(batch)
            here = set(numbers[found : bisect_left(numbers, stop)])
            found += len(here)
            if here:
                yield from _wanted(batch.select(columns or batch.schema.names), container, first, here)
            if found == len(numbers):
                return
            first = stop
    if found < len(numbers):
        raise _changed(container, f"row {numbers[found]} is not there")


def _wanted(batch: pa.RecordBatch, container: Container, first: int, numbers: set[int]) -> Iterator[Record]:
    try:
        yield from until_last(checked_records(batch, container, first), numbers)
    except ARROW_FAILS as error:
        raise _changed(container, str(error)) from error


def _changed(container: Container, what: str) -> ShardError:
    return ShardError(f"{container.path} changed since it was indexed: {what}; run again", "shard_changed")

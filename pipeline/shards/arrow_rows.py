"""Arrow IPC streams as `datasets` saves them: one pass from front to back, one record batch in memory at a time.

A stream has no footer that counts its rows; what cannot be read of it at its end is one row.
"""

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
    checked_schema,
    decode_names,
    indexed,
    is_text,
    text_bytes,
    with_image,
)
from pipeline.shards.beside import ImagesDigest, inside
from pipeline.shards.container import Container
from pipeline.shards.rows import Row
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


class ArrowRows:
    """One pass over a stream: iterate the rows, then ask for the digest."""

    def __init__(self, container: Container) -> None:
        self.container = container
        self.digest = ""
        self.total = 0
        """Rows of the stream, and one for an end that cannot be read."""
        self._images = ImagesDigest()
        self._is_beside = False

    def __iter__(self) -> Iterator[Row]:
        """Rows in order; one row for a batch that cannot be read, and one for what is lost of the stream.

        Raises:
            ShardError: nothing can be read at all, or the disk or network fails.
            RecipeError: a column that is not there, or of a type that holds no image or caption.
        """
        digesting = Digesting(open_bytes(self.container.path), self.container.path)
        with io.BufferedReader(digesting, BUFFER_BYTES) as stream:
            source = Source(cast(BinaryIO, stream))
            with _reader(source, self.container) as reader:
                checked_schema(reader.schema, self.container)
                yield from self._rows(reader, source)
            while stream.read(BUFFER_BYTES):
                pass
        digest = digesting.sha256.hexdigest()
        self.digest = self._images.with_table(digest) if self._is_beside else digest

    def _rows(self, reader: pa.RecordBatchReader, source: Source) -> Iterator[Row]:
        ending = _Ending()
        for batch in _batches(reader, ending):
            first, self.total = self.total, self.total + _length(batch)
            with suppress(*ARROW_FAILS):
                for record in _records(batch, self.container, first):
                    yield self._indexed(record)
                    first = record.number + 1
            if first < self.total:
                yield Row(first, self.total, reason="broken_row_group")
        reason = ending.reason(source)
        if reason is not None:
            self.total += 1
            yield Row(self.total - 1, self.total, reason=reason)

    def _indexed(self, record: Record) -> Row:
        found, reason = with_image(record, self.container)
        if record.path is not None:
            self._is_beside = True
            self._images.add(f"{record.number} {record.path}", found.image, reason)
        return indexed(found, reason, self.container)


class _Ending:
    """How the batches ended."""

    fault: Exception | None = None

    def reason(self, source: Source) -> str | None:
        """None where the stream was closed and nothing follows."""
        if self.fault is None and source.last == END:
            return "broken_archive" if source.stream.read(1) else None
        return "truncated_shard" if source.is_cut else "broken_archive"


@contextmanager
def _reader(source: Source, container: Container) -> Iterator[pa.RecordBatchReader]:
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


def _batches(reader: pa.RecordBatchReader, ending: _Ending) -> Iterator[pa.RecordBatch]:
    while True:
        try:
            batch = reader.read_next_batch()
        except StopIteration:
            return
        except ARROW_FAILS as error:
            ending.fault = error
            return
        yield batch


def _records(batch: pa.RecordBatch, container: Container, first: int) -> Iterator[Record]:
    """The rows of a batch, which Arrow has read but not checked.

    Raises:
        ARROW_FAILS: a length or an offset that leads out of its buffer.
    """
    batch.validate()  # before anything is cut or viewed: Arrow ends the process at a negative length
    batch = pa.record_batch([_sound(column) for column in batch.columns], batch.schema.names)
    for start in range(0, batch.num_rows, BATCH_ROWS):
        yield from batch_records(batch.slice(start, BATCH_ROWS), container, first + start, KEY_DIGITS)


def _length(batch: pa.RecordBatch) -> int:
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
    with open_bytes(container.path) as stream, _reader(Source(stream), container) as reader:
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
    with stream, _reader(Source(cast(BinaryIO, stream)), container) as reader:
        for batch in _batches(reader, _Ending()):
            stop = first + _length(batch)
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
        for record in _records(batch, container, first):
            if record.number in numbers:
                yield record
    except ARROW_FAILS as error:
        raise _changed(container, str(error)) from error


def _changed(container: Container, what: str) -> ShardError:
    return ShardError(f"{container.path} changed since it was indexed: {what}; run again", "shard_changed")

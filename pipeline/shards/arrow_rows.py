"""Arrow IPC streams as `datasets` saves them: one pass from front to back that digests and accounts for every row.

A stream has no footer that counts its rows; what cannot be read of it at its end is one row.
"""

import io
from collections.abc import Iterator
from contextlib import suppress
from typing import BinaryIO, cast

import pyarrow as pa

from pipeline.shards.arrow_records import Ending, Source, arrow_reader, batches, checked_records, length
from pipeline.shards.batch_records import ARROW_FAILS, Record, checked_schema, indexed, with_image
from pipeline.shards.beside import ImagesDigest
from pipeline.shards.container import Container
from pipeline.shards.rows import Row
from pipeline.shards.streams import BUFFER_BYTES, Digesting, open_bytes


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
            with arrow_reader(source, self.container) as reader:
                checked_schema(reader.schema, self.container)
                yield from self._rows(reader, source)
            while stream.read(BUFFER_BYTES):
                pass
        digest = digesting.hash.hexdigest()
        self.digest = self._images.with_table(digest) if self._is_beside else digest

    def _rows(self, reader: pa.RecordBatchReader, source: Source) -> Iterator[Row]:
        ending = Ending()
        for batch in batches(reader, ending):
            first, self.total = self.total, self.total + length(batch)
            with suppress(*ARROW_FAILS):
                for record in checked_records(batch, self.container, first):
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

"""Parquet with images, or their paths: one pass that digests and accounts for every row of the footer."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import islice
from typing import BinaryIO

import pyarrow.parquet as pq

from pipeline.shards.batch_records import ARROW_FAILS, checked_schema, indexed, with_image
from pipeline.shards.beside import ImagesDigest
from pipeline.shards.container import Container
from pipeline.shards.expand import is_url
from pipeline.shards.parquet_records import parquet_file, records
from pipeline.shards.rows import Row
from pipeline.shards.streams import digest_file, open_bytes
from schemas.errors import ShardError


class ParquetRows:
    """One pass over a Parquet file: iterate the rows, then ask for the digest."""

    def __init__(self, container: Container) -> None:
        self.container = container
        self.digest = ""
        self.total = 0
        """Rows of the file, by its footer's count for each row group."""

    def __iter__(self) -> Iterator[Row]:
        """Rows in order; where a row group is damaged, one row for what of it cannot be read.

        Raises:
            ShardError: nothing can be read at all.
            RecipeError: a column that is not there, or of a type that holds no image or caption.
        """
        path = self.container.path
        # A footer is read last and a digest front to back: a remote file is fetched once, into a temporary one.
        with tempfile.TemporaryFile() as copy:
            digest, size = digest_file(path, copy if is_url(path) else None)
            if not size:
                raise ShardError(f"{path} holds no bytes; expected Parquet", "empty_shard")
            with _local(path, copy) as source, parquet_file(source, path) as file:
                checked_schema(file.schema_arrow, self.container)
                images = ImagesDigest()
                yield from self._rows(file, images)
        self.digest = images.with_table(digest) if self.container.root else digest

    def _rows(self, file: pq.ParquetFile, images: ImagesDigest) -> Iterator[Row]:
        done = 0
        for group in range(file.num_row_groups):
            stop = done + max(0, file.metadata.row_group(group).num_rows)
            with suppress(*ARROW_FAILS):
                for record in islice(records(file, self.container, group, done), stop - done):
                    record, reason = with_image(record, self.container)
                    if self.container.root:
                        images.add(record.path, record.image, reason)
                    yield indexed(record, reason, self.container)
                    done = record.number + 1
            if done < stop:
                yield Row(done, stop, reason="broken_row_group")
            done = stop
        self.total = done


@contextmanager
def _local(path: str, copy: BinaryIO) -> Iterator[BinaryIO]:
    if is_url(path):
        copy.seek(0)
        yield copy
        return
    with open_bytes(path) as stream:
        yield stream

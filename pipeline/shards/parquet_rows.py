"""Parquet with image bytes: one pass that digests the file and accounts for every row of its footer."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import islice
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.shards.container import Container
from pipeline.shards.expand import is_url
from pipeline.shards.parquet_records import ARROW_FAILS, Record, is_bytes, is_text, open_parquet, parquet_file, records
from pipeline.shards.records import fill_hashes, require_column
from pipeline.shards.rows import Row, read_caption
from pipeline.shards.streams import digest_file, open_bytes
from schemas.errors import RecipeError, ShardError


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
            self.digest, size = digest_file(path, copy if is_url(path) else None)
            if not size:
                raise ShardError(f"{path} holds no bytes; expected Parquet", "empty_shard")
            with _local(path, copy) as source, parquet_file(source, path) as file:
                checked_schema(file.schema_arrow, self.container)
                yield from self._rows(file)

    def _rows(self, file: pq.ParquetFile) -> Iterator[Row]:
        done = 0
        for group in range(file.num_row_groups):
            stop = done + max(0, file.metadata.row_group(group).num_rows)
            with suppress(*ARROW_FAILS):
                for record in islice(records(file, self.container, group, done), stop - done):
                    yield indexed(record, self.container)
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
        if schema.names.count(name) > 1:
            raise RecipeError(f"{container.path} has {schema.names.count(name)} columns {name!r}; expected one")
    image, caption = schema.field(container.image).type, schema.field(container.caption).type
    if pa.types.is_struct(image):
        image = image.field("bytes").type if image.get_field_index("bytes") >= 0 else image
    if not is_bytes(image):
        hint = "a table of URLs is downloaded first, e.g. with img2dataset" if is_text(image) else "name another column"
        raise RecipeError(
            f"{container.path}: image column {container.image!r} is {image}; expected image bytes: {hint}"
        )
    if not (is_text(caption) or is_bytes(caption)):
        raise RecipeError(f"{container.path}: caption column {container.caption!r} is {caption}; expected text")


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

"""Parquet: one file an output shard, one row a sample, in row groups that a streaming reader can hold.

The shards have a folder of their own, `data/`: readers open whole folders, and `members.parquet` is no shard.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.export.columns import Columns
from pipeline.export.format import Format, Sample, file_sha256

GROUP_BYTES = 64 << 20
GROUP_ROWS = 1000
"""A row group ends at whichever comes first."""


@dataclass(frozen=True)
class Parquet(Format):
    """Columns as `Columns`; bytes as they are, text compressed."""

    title: ClassVar[str] = "Parquet"
    names: ClassVar[str] = "data/{folder}{number:05d}.parquet"
    reading: ClassVar[str] = (
        "One row a sample: `key`, `image` (the file's bytes), `image_suffix`, `caption`, `json`, other members as\n"
        "bytes under their suffix, then the scores; any Parquet reader opens it."
    )

    @cached_property
    def columns(self) -> Columns:
        """What stands in a row."""
        return Columns(self.layout)

    def schema(self) -> pa.Schema:
        """Of every shard."""
        return self.columns.schema

    def values(self, field: pa.Field, rows: list[dict[str, Any]]) -> list[Any]:
        """One column of these rows."""
        return [row[field.name] for row in rows]

    def write(self, path: Path, samples: Iterator[Sample], count: int) -> str:
        """Write one file, a row group at a time."""
        schema = self.schema()
        texts = [field.name for field in schema if pa.types.is_string(field.type)]
        packed = dict.fromkeys(texts, "zstd")
        with pq.ParquetWriter(path, schema, compression=packed, use_dictionary=["image_suffix"]) as writer:
            for rows in _groups(self.columns, samples):
                arrays = [pa.array(self.values(field, rows), field.type) for field in schema]
                writer.write_table(pa.table(arrays, schema), row_group_size=len(rows))
        return file_sha256(path)


def _groups(columns: Columns, samples: Iterator[Sample]) -> Iterator[list[dict[str, Any]]]:
    rows: list[dict[str, Any]] = []
    size = 0
    for sample in samples:
        rows.append(columns.row(sample))
        size += sum(len(content) for _, content in sample.members)
        if size >= GROUP_BYTES or len(rows) == GROUP_ROWS:
            yield rows
            rows, size = [], 0
    if rows:
        yield rows

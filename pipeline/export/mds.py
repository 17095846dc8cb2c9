"""MDS, the shards of MosaicML Streaming: per split a folder of `.mds` files and an index.json.

A shard is, in little endian: the number of samples n (uint32), n + 1 byte offsets (uint32) from the file's start, the
columns as JSON, then the samples. A sample is the size (uint32) of each of its values, then the values, columns by
name. Written here and not by the library, whose writer names and numbers the shards of one whole folder itself.
"""

import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from pipeline.export.columns import Columns
from pipeline.export.format import Format, Sample, by_split, file_sha256
from pipeline.sidecars import write_json
from schemas.errors import CuveeError

MOST_BYTES = 1 << 32
"""Offsets have 32 bits."""


@dataclass(frozen=True)
class Mds(Format):
    """Text as `str`, members as `bytes` (both empty where there is none), scores as `json` (which knows null)."""

    title: ClassVar[str] = "MDS"
    names: ClassVar[str] = "{folder}{number:05d}.mds"
    reading: ClassVar[str] = (
        "For MosaicML Streaming: `StreamingDataset(local=FOLDER)`, with `split=` where there are splits. Columns:\n"
        "`key`, `image` (the file's bytes), `image_suffix`, `caption`, `json`, other members as bytes, then the scores."
    )

    @cached_property
    def columns(self) -> Columns:
        """What stands in a row."""
        return Columns(self.layout)

    @cached_property
    def encodings(self) -> dict[str, str]:
        """Column -> the name of its encoding, by name."""
        binary = {"image", *self.columns.others.values()}
        kinds = {name: "bytes" if name in binary else "str" for name in self.columns.schema.names}
        return dict(sorted((kinds | dict.fromkeys(self.layout.scores.names, "json")).items()))

    def config(self) -> dict[str, Any]:
        """What a shard and the index say of it."""
        return {
            "column_encodings": list(self.encodings.values()),
            "column_names": list(self.encodings),
            "column_sizes": [None] * len(self.encodings),
            "compression": None,
            "format": "mds",
            "hashes": ["sha256"],
            "size_limit": None,
            "version": 2,
        }

    def write(self, path: Path, samples: Iterator[Sample], count: int) -> str:
        """Write the samples behind the place that the offsets take, then the offsets.

        Raises:
            CuveeError: the shard would be 4 GiB or more.
        """
        config = json.dumps(self.config(), sort_keys=True).encode()
        offsets = [4 * (count + 2) + len(config)]
        with open(path, "wb") as out:
            out.seek(offsets[0])
            for sample in samples:
                offsets.append(offsets[-1] + out.write(self._encoded(sample)))
                _refuse_large(offsets, count)
            out.seek(0)
            out.write(struct.pack(f"<{len(offsets) + 1}I", count, *offsets) + config)
        return file_sha256(path)

    def _encoded(self, sample: Sample) -> bytes:
        row = self.columns.row(sample)
        values = [_value(row[name], encoding) for name, encoding in self.encodings.items()]
        return struct.pack(f"<{len(values)}I", *map(len, values)) + b"".join(values)

    def beside(self, folder: Path, name: str, shards: list[dict[str, Any]]) -> None:
        """Write an index.json per split."""
        for split, part in by_split(shards).items():
            write_json({"version": 2, "shards": [self._line(shard) for shard in part]}, folder / split / "index.json")

    def _line(self, shard: dict[str, Any]) -> dict[str, Any]:
        data = {
            "basename": Path(shard["url"]).name,
            "bytes": shard["filesize"],
            "hashes": {"sha256": shard["sha256"]},
        }
        return {**self.config(), "raw_data": data, "samples": shard["nsamples"], "zip_data": None}


def _value(value: Any, encoding: str) -> bytes:
    if encoding == "json":
        return json.dumps(value, sort_keys=True).encode()
    return (value or "").encode() if encoding == "str" else value or b""


def _refuse_large(offsets: list[int], count: int) -> None:
    if offsets[-1] >= MOST_BYTES:
        raise CuveeError(
            f"sample {len(offsets) - 1} of {count} passes byte {MOST_BYTES}, and an MDS shard holds less; "
            f"set `export.samples_per_shard` to {max(1, (len(offsets) - 1) // 2)} or less"
        )

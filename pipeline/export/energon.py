"""Megatron Energon: WebDataset tars, with what `energon prepare` would write after reading all of them again.

Beside each tar `NAME.tar.idx`: the byte offset of every sample's first header and of the end (uint64, little endian).
In `.nv-meta`: `.info.json` (samples per shard), `split.yaml` (split -> shards), `dataset.yaml` (which member becomes
which field of a sample), `index.sqlite` (where each sample and each of its members lies) and `index.uuid`.
"""

import hashlib
import sqlite3
import struct
import tarfile
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
import yaml

from pipeline.export.block import BLOCK
from pipeline.export.format import by_split
from pipeline.export.webdataset import WebDataset
from pipeline.shards.rows import IMAGE_SUFFIXES, split_name
from pipeline.sidecars import read_table, replacing, write_json, write_table
from schemas.recipe import TRAIN_SPLIT

META = ".nv-meta"
USUAL_SPLITS = (TRAIN_SPLIT, "val", "test")
PARTS = pa.schema(
    [("sample", pa.int64()), ("key", pa.string()), ("part", pa.string())]
    + [(name, pa.int64()) for name in ("header", "content", "size")]
)
TABLES = """
CREATE TABLE samples (tar_file_id INTEGER NOT NULL, sample_key TEXT NOT NULL UNIQUE, sample_index INTEGER NOT NULL,
    byte_offset INTEGER, byte_size INTEGER);
CREATE TABLE sample_parts (tar_file_id INTEGER, sample_index INTEGER, part_name TEXT, content_byte_offset INTEGER,
    content_byte_size INTEGER);
"""
INDEXES = """
CREATE INDEX idx_samples_by_tar_and_idx ON samples(tar_file_id, sample_index);
CREATE INDEX idx_sample_parts_seq ON sample_parts(tar_file_id, sample_index, content_byte_offset);
CREATE INDEX idx_sample_parts_full ON sample_parts(tar_file_id, sample_index, part_name, content_byte_offset,
    content_byte_size);
"""


@dataclass(frozen=True)
class Energon(WebDataset):
    """The tars of `WebDataset` and the files that energon reads beside them."""

    title: ClassVar[str] = "Megatron Energon (WebDataset)"
    reading: ClassVar[str] = (
        "For Megatron Energon: `get_train_dataset(FOLDER, ...)` gives a `CaptioningSample` each;\n"
        "`.nv-meta/dataset.yaml` says from which members. The tars are WebDataset as well."
    )

    def annotate(self, written: Path, shard: Path) -> None:
        """Write the tar's offsets, and for `beside` where its members lie."""
        parts = _parts(written)
        starts = [*_starts(parts), _end(parts)]
        with replacing(shard.with_suffix(".tar.idx")) as temporary:
            temporary.write_bytes(struct.pack(f"<{len(starts)}Q", *starts))
        write_table(parts, _parts_path(shard))

    def beside(self, folder: Path, name: str, shards: list[dict[str, Any]]) -> None:
        """Write `.nv-meta`."""
        meta = folder / META
        paths = {shard["url"]: folder / shard["url"] for shard in shards}
        for path in paths.values():
            if not _parts_path(path).exists():  # a killed run may have been clearing away
                self.annotate(path, path)
        _write_sqlite([_parts_path(path) for path in paths.values()], meta / "index.sqlite")
        write_json({"shard_counts": {shard["url"]: shard["nsamples"] for shard in shards}}, meta / ".info.json")
        splits = {split or TRAIN_SPLIT: [shard["url"] for shard in part] for split, part in by_split(shards).items()}
        usual: dict[str, list[str]] = {name: [] for name in USUAL_SPLITS}
        _write_yaml({"split_parts": {**usual, **splits}, "exclude": []}, meta / "split.yaml")
        _write_yaml(self._dataset(), meta / "dataset.yaml")
        content = hashlib.sha256("".join(shard["sha256"] for shard in shards).encode()).digest()
        with replacing(meta / "index.uuid") as temporary:
            temporary.write_text(str(uuid.UUID(bytes=content[:16], version=4)))
        for path in paths.values():
            _parts_path(path).unlink()

    def _dataset(self) -> dict[str, Any]:
        there = {suffix for suffixes in self.layout.suffixes for suffix in suffixes}
        captions = {"txt": "txt", "json": "json[caption],json[text]"}
        fields = {
            "image": ",".join(suffix for suffix in IMAGE_SUFFIXES if suffix in there),
            "caption": ",".join(field for suffix, field in captions.items() if suffix in there),
        }
        sample = {"__module__": "megatron.energon", "__class__": "CaptioningSample"}
        return {"sample_type": sample, "field_map": fields}


def _parts_path(shard: Path) -> Path:
    return shard.with_name(f".{shard.name}.parts")


def _parts(tar: Path) -> pa.Table:
    """One line per member, as `PARTS`: the sample's number and key, the suffix, header and content offsets, size."""
    lines: list[tuple[Any, ...]] = []
    number, last = -1, None
    with tarfile.open(tar) as archive:
        for member in archive:
            key, suffix = split_name(member.name)
            number, last = number + (key != last), key
            lines.append((number, key, suffix, member.offset, member.offset_data, member.size))
    columns = zip(zip(*lines, strict=True), PARTS, strict=True)
    return pa.table([pa.array(column, field.type) for column, field in columns], PARTS)


def _starts(parts: pa.Table) -> list[int]:
    """Offset of each sample's first header."""
    firsts: dict[int, int] = {}
    for sample, header in zip(parts["sample"].to_pylist(), parts["header"].to_pylist(), strict=True):
        firsts.setdefault(sample, header)
    return list(firsts.values())


def _end(parts: pa.Table) -> int:
    """Offset behind the last member's padding."""
    end: int = parts["content"][-1].as_py() + parts["size"][-1].as_py()
    return end + -end % BLOCK


def _write_sqlite(parts: list[Path], path: Path) -> None:
    """One transaction into an empty file, so that the same rows are the same bytes."""
    with replacing(path) as temporary:
        base = sqlite3.connect(temporary)
        base.executescript(TABLES)
        for number, table in enumerate(map(read_table, parts)):
            base.executemany("INSERT INTO samples VALUES (?, ?, ?, ?, ?)", _samples(number, table))
            rows = zip(*(table[name].to_pylist() for name in ("sample", "part", "content", "size")), strict=True)
            base.executemany("INSERT INTO sample_parts VALUES (?, ?, ?, ?, ?)", ((number, *row) for row in rows))
        base.commit()
        base.executescript(INDEXES)
        base.close()


def _samples(number: int, parts: pa.Table) -> Iterator[tuple[int, str, int, int, int]]:
    starts = [*_starts(parts), _end(parts)]
    keys = dict(zip(parts["sample"].to_pylist(), parts["key"].to_pylist(), strict=True))
    for sample, key in keys.items():
        yield number, key, sample, starts[sample], starts[sample + 1] - starts[sample]


def _write_yaml(value: dict[str, Any], path: Path) -> None:
    with replacing(path) as temporary:
        temporary.write_text(yaml.safe_dump(value, sort_keys=False))

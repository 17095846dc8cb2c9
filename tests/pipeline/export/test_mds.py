"""MDS shards: the bytes that the library's own writer writes, and what does not fit is refused."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from pipeline.export import mds
from pipeline.export.format import Layout, Sample
from pipeline.export.mds import Mds
from pipeline.sidecars import read_json
from schemas.errors import CuveeError

SAMPLES = [
    Sample("k0", [("cls", b"7"), ("jpg", b"\xff\xd8one"), ("json", b'{"a": 1}'), ("txt", b"ein Bild")], {"words": 2}),
    Sample("k1", [("png", b""), ("txt", "図".encode())], {"words": None}),
]
FORM = Mds(Layout((("cls", "jpg", "json", "txt"), ("png", "txt")), pa.schema([("words", pa.int32())])))


def test_a_shard_is_the_librarys(read_elsewhere: Callable[..., Any], tmp_path: Path) -> None:
    digest = FORM.write(tmp_path / "00000.mds", iter(SAMPLES), 2)
    rows = [{name: plain(value, FORM.encodings[name]) for name, value in FORM.columns.row(s).items()} for s in SAMPLES]
    (tmp_path / "rows.json").write_text(json.dumps([FORM.encodings, rows]))
    read_elsewhere("write_mds.py", tmp_path / "rows.json", tmp_path / "theirs")
    assert (tmp_path / "00000.mds").read_bytes() == (tmp_path / "theirs" / "shard.00000.mds").read_bytes()

    size = (tmp_path / "00000.mds").stat().st_size
    facts = {"url": "shard.00000.mds", "split": "", "nsamples": 2, "filesize": size, "sha256": digest}
    FORM.beside(tmp_path, "name", [facts])
    assert read_json(tmp_path / "index.json") == read_json(tmp_path / "theirs" / "index.json")


def plain(value: Any, encoding: str) -> Any:
    """A row's value as the library's writer takes it."""
    if encoding == "json":
        return value
    return (value or b"").hex() if encoding == "bytes" else value or ""


def test_too_large_a_shard_is_refused_with_a_size_that_fits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mds, "MOST_BYTES", 1000)
    samples = [Sample(f"k{number}", [("jpg", b"x" * 90), ("txt", b"y")], {"words": 1}) for number in range(10)]
    with pytest.raises(CuveeError, match=r"sample \d of 10 passes byte 1000.*samples_per_shard` to [1-4] or less"):
        FORM.write(tmp_path / "00000.mds", iter(samples), 10)

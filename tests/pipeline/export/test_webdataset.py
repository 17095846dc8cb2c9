"""The tar writer against the standard library's: the same headers, padding and end for any name and size."""

import hashlib
import io
import json
import tarfile
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.export.format import Layout, Sample
from pipeline.export.webdataset import PIECE_BYTES, WebDataset, tar_header
from pipeline.sidecars import read_json

LAYOUT = Layout((("jpg", "txt"),), pa.schema([]))
NAMES = {
    "plain": "0123456789abcdef.jpg",
    "empty suffix": "a.",
    "99 characters": "a" * 95 + ".jpg",
    "100 characters": "a" * 96 + ".jpg",
    "101 characters": "a" * 97 + ".jpg",
    "101 with a folder": "folder/" + "a" * 90 + ".jpg",
    "300 characters": "a" * 296 + ".jpg",
    "not ASCII": "schlüssel.jpg",
    "100 characters, more bytes": "ü" * 96 + ".jpg",
    "no UTF-8": "a\udcff.jpg",
    "all ones": "\x7f" * 96 + ".jpg",
}
SIZES = (0, 1, 511, 512, 513, 8**7, 8**11 - 1, 8**11, 8**11 + 5, 1 << 40)


def by_the_library(name: str, size: int) -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.mode = size, 0o444
    return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
def test_headers_are_the_librarys(name: str, size: int) -> None:
    assert tar_header(name, size) == by_the_library(name, size)


@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1), st.integers(0, 1 << 36))
def test_any_header_is_the_librarys(name: str, size: int) -> None:
    assert tar_header(name, size) == by_the_library(name, size)


@pytest.mark.parametrize("sizes", [[0], [1], [512], [513, 0, 7], [tarfile.RECORDSIZE - 1536], [PIECE_BYTES + 1, 3]])
def test_a_tar_is_the_librarys(tmp_path: Path, sizes: list[int]) -> None:
    samples = [Sample(f"k{number}", [("jpg", b"x" * size), ("txt", b"y")], {}) for number, size in enumerate(sizes)]
    digest = WebDataset(LAYOUT).write(tmp_path / "ours.tar", iter(samples), len(samples))
    with tarfile.open(tmp_path / "theirs.tar", "w") as archive:
        for name, body in ((f"{one.key}.{suffix}", body) for one in samples for suffix, body in one.members):
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(body), 0o444
            archive.addfile(info, io.BytesIO(body))
    ours = (tmp_path / "ours.tar").read_bytes()
    assert ours == (tmp_path / "theirs.tar").read_bytes()
    assert digest == hashlib.sha256(ours).hexdigest()


def test_scores_become_a_member_among_the_others(tmp_path: Path) -> None:
    one = Sample("k", [("a", b"1"), ("jpg", b"2")], {"words": 3, "phash": 2**64 - 1, "clip_score": None})
    WebDataset(LAYOUT).write(tmp_path / "t.tar", iter([one]), 1)
    with tarfile.open(tmp_path / "t.tar") as archive:
        assert archive.getnames() == ["k.a", "k.cuvee.json", "k.jpg"]
        scores = archive.extractfile("k.cuvee.json")
        assert scores is not None
        assert json.load(scores) == one.scores


def test_each_split_has_an_index_of_its_own(tmp_path: Path) -> None:
    facts = {"nsamples": 2, "filesize": 10, "sha256": "0"}
    shards = [{"url": f"{split}/00000.tar", "split": split, **facts} for split in ("holdout", "train")]
    WebDataset(LAYOUT).beside(tmp_path, "name", shards)
    for split in ("holdout", "train"):
        index = read_json(tmp_path / split / "index.json")
        assert index["shardlist"] == [{"url": "00000.tar", "nsamples": 2, "filesize": 10}]

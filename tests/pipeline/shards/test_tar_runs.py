"""Rows made many at a time are the rows made member by member."""

import io
import tarfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.shards import Container, ShardScan, slices, tar_rows, tar_runs, tar_window
from pipeline.shards.rows import split_name, split_names
from pipeline.shards.tar_runs import Shape, shape_of
from pipeline.shards.tar_window import plain_headers

KEYS = st.sampled_from(["a", "a", "b", "c", "00/a", "../a", "d:", "größe"])
SUFFIXES = st.lists(st.sampled_from(["jpg", "JPG", "png", "txt", "json", "cls", ""]), max_size=4)
CONTENTS = st.sampled_from([b"", b"a caption", b'{"caption": "told"}', b"{broken", b"\xff\xfe", b"x" * 1200, b"  "])
SAMPLES = st.lists(st.tuples(KEYS, SUFFIXES, CONTENTS), max_size=12)


def tar_of(samples: list[tuple[str, list[str], bytes]]) -> bytes:
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w") as archive:
        for key, suffixes, content in samples:
            for suffix in suffixes:
                info = tarfile.TarInfo(f"{key}.{suffix}" if suffix else key)
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    return sink.getvalue()


def told(path: Path, slice_bytes: int, slice_rows: int) -> object:
    scan = ShardScan(Container(str(path), "tar"), slice_bytes, slice_rows)
    try:
        pieces = list(scan)
    except tar_rows.ShardError as error:
        return error.reason
    facts = [(p.index.to_pylist(), p.images.to_pylist(), p.image_bytes, p.first_row) for p in pieces]
    return facts, scan.digest, scan.samples, scan.size, scan.trailer_bytes


@settings(max_examples=300, deadline=None)
@given(SAMPLES, st.sampled_from([1536, 4096, 1 << 21]), st.sampled_from([(1 << 20, 5), (900, 100), (1 << 20, 100)]))
def test_no_batch_changes_a_slice(
    tmp_path_factory: pytest.TempPathFactory,
    samples: list[tuple[str, list[str], bytes]],
    window: int,
    most: tuple[int, int],
) -> None:
    path = tmp_path_factory.getbasetemp() / "batches.tar"
    path.write_bytes(tar_of(samples))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tar_window, "WINDOW_BYTES", window)
        together = told(path, *most)
        patch.setattr(tar_rows.TarRows, "_usual", lambda *_: iter(()))
        assert told(path, *most) == together


def test_samples_of_a_usual_tar_come_in_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "usual.tar"
    path.write_bytes(tar_of([(f"{number:05d}", ["jpg", "json", "txt"], b'{"a": 1}') for number in range(100)]))
    counts: list[int] = []
    extend = slices._Held.extend

    def counted(held: slices._Held, batch: slices.RowBatch, *most: int) -> bool:
        counts.append(len(batch.keys))
        return extend(held, batch, *most)

    monkeypatch.setattr(slices._Held, "extend", counted)
    facts, *_ = told(path, 1 << 20, 4096)  # type: ignore[misc]
    assert counts == [99]  # what follows the last one is no header
    assert len(facts[0][0]) == 100


@pytest.mark.parametrize(
    ("suffixes", "shape"),
    [
        (("jpg", "json", "txt"), Shape(0, 2, 1, (0, 1, 2))),
        (("txt", "png", "jpg"), Shape(2, 0, None, (2, 1, 0))),
        (("cls",), Shape(None, None, None, (0,))),
        (("jpg", "jpg"), None),
        (("jpg", ""), None),
        (tuple(map(str, range(tar_runs.MOST_MEMBERS + 1))), None),
    ],
)
def test_shapes(suffixes: tuple[str, ...], shape: Shape | None) -> None:
    assert shape_of(suffixes) == shape


def test_a_tar_inside_a_tar_is_one_member() -> None:
    inner = tar_of([("a", ["jpg", "txt"], b"content")])
    heads = plain_headers(tar_of([("outer", ["tar"], inner), ("b", ["jpg"], b"x")]))
    assert heads.names == ["outer.tar", "a.jpg", "a.txt", "b.jpg"]
    assert heads.followed == [False, True, False, False]


@given(st.lists(st.text(st.sampled_from("aB./\né"), max_size=8), max_size=5))
def test_names_are_split_at_once_as_one_by_one(names: list[str]) -> None:
    keys, suffixes = split_names(names)
    assert list(zip(keys, suffixes, strict=True)) == [split_name(name) for name in names]

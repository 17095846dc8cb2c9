"""Whatever the disk takes at a time and in whatever way, a file holds what was written."""

import errno
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.export import direct
from pipeline.export.direct import ALIGNMENT, DirectFile, Room, aligned
from pipeline.export.direct import open_direct as open_with

SIZES = st.lists(st.sampled_from([0, 1, 511, 512, 1536, 4096, 10240, 70000]), max_size=5)


@contextmanager
def open_direct(path: Path) -> Iterator[DirectFile]:
    with ThreadPoolExecutor(1) as writer, open_with(path, writer) as out:
        yield out


@given(SIZES)
def test_any_pieces_are_the_file(tmp_path_factory: pytest.TempPathFactory, sizes: list[int]) -> None:
    path = tmp_path_factory.getbasetemp() / "pieces"
    parts = []
    with open_direct(path) as out:
        for number, size in enumerate(sizes):
            room = aligned(size)
            room[:] = np.arange(size) % 251 + number
            parts.append(room.tobytes())
            out.write(room.data)
    assert path.read_bytes() == b"".join(parts)


def test_what_lies_anywhere_in_memory_is_written_as_well(tmp_path: Path) -> None:
    content = memoryview(bytes(range(256)) * 100)[3:]
    with open_direct(tmp_path / "odd") as out:
        out.write(content)
    assert (tmp_path / "odd").read_bytes() == content


def test_a_file_that_is_there_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "again"
    path.write_bytes(b"longer than what comes")
    with open_direct(path) as out:
        out.write(b"short")
    assert path.read_bytes() == b"short"


def test_short_writes_are_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, piece: write(descriptor, piece[:3]))
    with open_direct(tmp_path / "short") as out:
        out.write(b"0123456789")
    assert (tmp_path / "short").read_bytes() == b"0123456789"


def test_a_system_without_another_way_writes_by_its_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = os.open

    def refusing(path: Path, flags: int, mode: int) -> int:
        if flags & direct.BYPASS:
            raise OSError(errno.EINVAL, "no such way")
        return opened(path, flags, mode)

    monkeypatch.setattr(os, "open", refusing)
    with open_direct(tmp_path / "cached") as out:
        out.write(b"content")
    assert (tmp_path / "cached").read_bytes() == b"content"


def test_a_full_disk_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "full")

    with pytest.raises(OSError, match="full"), open_direct(tmp_path / "full") as out:
        monkeypatch.setattr(os, "write", full)
        out.write(b"content")


def test_memory_is_aligned_and_used_again_as_far_as_it_is_kept() -> None:
    room = Room(100_000)
    first, second, large = room(5000), room(6000), room(200_000)
    assert all(one.ctypes.data % ALIGNMENT == 0 for one in (first, second, large))
    assert first.ctypes.data == second.ctypes.data
    assert [len(one) for one in (first, second, large, room(0))] == [5000, 6000, 200_000, 0]

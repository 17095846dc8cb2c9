"""Headers of a window parsed at once say what one by one they say, and change nothing about any tar, sound or not."""

import tarfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.shards import tar_window
from pipeline.shards.tar_header import BLOCK, parse_header
from pipeline.shards.tar_window import TarWindow, plain_headers
from tests.fuzz.mutations import broken_tars
from tests.fuzz.properties import scanned

NAMES = st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",)), min_size=1, max_size=60)
FORMATS = st.sampled_from([tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT])


def table(content: bytes) -> dict[int, tuple[str, int]]:
    """Place -> name and size."""
    heads = plain_headers(content)
    return {place: (heads.names[number], heads.sizes[number]) for place, number in heads.number.items()}


@settings(max_examples=200, deadline=None)
@given(broken_tars())
def test_what_is_in_the_table_is_what_the_parser_says(content: bytes) -> None:
    for place, (name, size) in table(content).items():
        header = parse_header(content[place : place + BLOCK])
        assert header is not None
        assert (header.name, header.kind, header.size, header.more_sparse) == (name, tarfile.REGTYPE, size, False)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(NAMES, st.integers(0, 8**11 - 1)), min_size=1, max_size=5), FORMATS)
def test_usual_headers_are_in_the_table(members: list[tuple[str, int]], form: int) -> None:
    blocks = []
    for name, size in members:
        info = tarfile.TarInfo(name.replace("/", "x"))
        info.size = size
        block = info.tobuf(form, "utf-8", "strict")
        blocks += [block] if len(block) == BLOCK else []
    assert list(table(b"".join(blocks))) == [BLOCK * number for number in range(len(blocks))]


@pytest.mark.parametrize(
    ("place", "value"),
    [(124, b"-"), (124, b"\x80"), (135, b"x"), (148, b"9"), (154, b"1"), (156, b"2"), (257, b"U"), (345, b"p")],
)
def test_unusual_headers_are_left_to_the_parser(place: int, value: bytes) -> None:
    block = bytearray(tarfile.TarInfo("a.jpg").tobuf(tarfile.USTAR_FORMAT))
    assert table(bytes(block)) == {0: ("a.jpg", 0)}
    block[place : place + 1] = value
    if place not in range(148, 156):
        block[148:154] = b"%06o" % (sum(block) - sum(block[148:156]) + 8 * 32)
    assert table(bytes(block)) == {}


@given(st.binary(max_size=3000), st.sampled_from([512, 1024]), st.lists(st.integers(0, 1600), max_size=9))
def test_any_takes_from_any_windows_are_the_stream(content: bytes, window: int, sizes: list[int]) -> None:
    position = 0

    def readinto(buffer: memoryview) -> int:
        nonlocal position
        chunk = content[position : position + len(buffer)]
        buffer[: len(chunk)] = chunk
        position += len(chunk)
        return len(chunk)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tar_window, "WINDOW_BYTES", window)
        stream, start = TarWindow(readinto), 0
        for size in sizes:
            assert stream.take(size) == content[start : start + size]
            start += size


@settings(max_examples=120, deadline=None)
@given(broken_tars(), st.sampled_from([512, 1536]))
def test_no_table_and_no_window_changes_a_scan(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, window: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "windows.tar"
    path.write_bytes(content)
    usual = _told(path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tar_window, "WINDOW_BYTES", window)
        assert _told(path) == usual
        nothing = plain_headers(b"")
        patch.setattr(tar_window, "plain_headers", lambda _: nothing)
        assert _told(path) == usual


def _told(path: Path) -> object:
    found = scanned(path)
    return found if isinstance(found, str) else (found[0].to_pylist(), found[1], found[2].digest, found[2].size)

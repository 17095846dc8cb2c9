import tarfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.shards.tar_header import BLOCK, number, parse_header, pax_records

NAMES = st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",)), min_size=1, max_size=60)
KINDS = [tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.SYMTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE, tarfile.CONTTYPE]
FORMATS = [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT]


@settings(max_examples=100, deadline=None)
@given(NAMES, st.integers(0, 8**11 - 1), st.sampled_from(KINDS), st.sampled_from(FORMATS))
def test_headers_agree_with_the_standard_library(name, size, kind, form):
    info = tarfile.TarInfo(name)
    info.size, info.type = size, kind
    try:
        block = info.tobuf(form, "utf-8", "strict")
    except ValueError:  # longer than a ustar name
        return
    if len(block) != BLOCK:
        return
    theirs = tarfile.TarInfo.frombuf(block, "utf-8", "backslashreplace")
    ours = parse_header(block)
    assert (ours.name.rstrip("/"), ours.size, ours.kind) == (theirs.name.rstrip("/"), theirs.size, theirs.type)


def test_a_posix_prefix_belongs_to_the_name():
    long = "a" * 90 + "/" + "b" * 90 + ".jpg"
    assert parse_header(tarfile.TarInfo(long).tobuf(tarfile.USTAR_FORMAT)).name == long


def test_base_256_sizes_as_gnu_tar_writes_them():
    info = tarfile.TarInfo("a.jpg")
    info.size = 9 << 40
    assert parse_header(info.tobuf(tarfile.GNU_FORMAT)).size == 9 << 40
    assert number(b"\xff" * 12) == -1
    info.size = -5
    assert parse_header(info.tobuf(tarfile.GNU_FORMAT)) is None


@settings(max_examples=100, deadline=None)
@given(st.integers(0, BLOCK - 1), st.integers(1, 255))
def test_one_changed_byte_is_seen_as_the_standard_library_sees_it(place, change):
    block = bytearray(tarfile.TarInfo("käse/0001.jpg").tobuf(tarfile.USTAR_FORMAT))
    block[place] ^= change
    try:
        tarfile.TarInfo.frombuf(bytes(block), "utf-8", "backslashreplace")
        sound = True
    except tarfile.HeaderError:
        sound = False
    assert (parse_header(bytes(block)) is not None) == sound


def test_signed_checksums_of_old_tars():
    block = bytearray(tarfile.TarInfo("ä" * 20).tobuf(tarfile.USTAR_FORMAT))
    blanked = block[:148] + b" " * 8 + block[156:]
    signed = sum(byte - 256 if byte > 127 else byte for byte in blanked)
    block[148:156] = b"%06o\0 " % signed
    assert parse_header(bytes(block)).name == "ä" * 20


def test_pax_records():
    body = b"17 path=\xc3\xa4/b.jpg\n" + b"9 size=3\n"
    assert pax_records(body) == {"path": "ä/b.jpg", "size": "3"}
    assert pax_records(b"") == {}


@pytest.mark.parametrize(
    "body", [b"x", b"999999 path=a\n", b"9 pathxa1\n", b"3 a=b\n", b"0 a=b\n", b"-4 a=b\n", b"11 path=ab.c", b"1" * 40]
)
def test_broken_pax_records_are_refused(body):
    with pytest.raises(ValueError):
        pax_records(body)

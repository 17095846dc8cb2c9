"""What is compressed: damage keeps what came before, and no stream takes more memory than its pieces."""

import gzip
import io
import tracemalloc
import zlib

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.shards import inflating, read_members
from pipeline.shards.inflating import Inflating, pieces_of
from schemas.errors import ShardError

SKIPPABLE = b"\x50\x2a\x4d\x18\x05\0\0\0hello"


@pytest.fixture(scope="module")
def content(kit):
    return kit.tar_bytes([member for number in range(6) for member in kit.sample(number)])


def compressed(content: bytes, **settings) -> bytes:
    return zstandard.ZstdCompressor(**settings).compress(content)


def inflated(content: bytes, chunk: int = 1 << 16) -> tuple[bytes, str | None]:
    pieces = pieces_of(content[:4])
    assert pieces is not None
    stream = Inflating(io.BytesIO(content), pieces)
    parts = []
    while part := stream.read(chunk):
        parts.append(part)
    return b"".join(parts), stream.fault


@settings(max_examples=80, deadline=None)
@given(st.lists(st.binary(max_size=400_000), min_size=1, max_size=3), st.integers(1, 5000), st.booleans())
def test_frames_are_what_the_library_makes_of_them(parts, chunk, checksum):
    frames = [compressed(part, write_checksum=checksum) for part in parts]
    for content in (b"".join(frames), SKIPPABLE + SKIPPABLE.join(frames) + SKIPPABLE):
        assert inflated(content, chunk) == (b"".join(parts), None)


def test_what_does_not_shrink_and_what_is_all_one_byte():
    for plain in (bytes(3_000_000), zlib.compress(bytes(100)) * 9, b""):
        for level in (1, 19):
            assert inflated(compressed(plain, level=level)) == (plain, None)
        assert inflated(gzip.compress(plain)) == (plain, None)


def test_a_stream_of_unknown_size_is_read_too():
    maker = zstandard.ZstdCompressor().compressobj()
    packed = b"".join(maker.compress(bytes([number]) * 70_000) for number in range(9)) + maker.flush()
    assert inflated(packed) == (b"".join(bytes([number]) * 70_000 for number in range(9)), None)


def test_a_cut_keeps_every_block_before_it(content):
    maker = zstandard.ZstdCompressor(write_checksum=True).compressobj()
    pieces = [
        maker.compress(content[at : at + 1000]) + maker.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK)
        for at in range(0, len(content), 1000)
    ]
    pieces.append(maker.flush())
    packed = b"".join(pieces)
    for cut in range(5, len(packed)):
        found, fault = inflated(packed[:cut])
        whole = sum(sum(map(len, pieces[: number + 1])) <= cut for number in range(len(pieces) - 1))
        assert fault == "truncated_shard"
        assert found == content[: whole * 1000], cut


def test_a_compressed_tar_cut_anywhere_keeps_what_inflates(content, scan_of):
    uncut = scan_of(content)
    frames = [compressed(content[at : at + 512]) for at in range(0, len(content), 512)]
    for number in range(2, len(frames) - 1):
        plain = content[: number * 512]
        whole = b"".join(frames[:number])
        assert scan_of(whole).index.equals(scan_of(plain).index)  # cut at a frame's border: a cut tar
        found = scan_of(whole + frames[number][:-1])
        assert found.reasons[-1] == "truncated_shard"
        sound = found.index.slice(0, len(found.index) - 1)
        assert sound.slice(1).equals(uncut.index.slice(1, max(0, len(sound) - 1)))


@pytest.mark.parametrize("tail", [b"garbage after the frame", b"\0" * 64])
def test_what_follows_a_frame_and_is_none_is_a_row(content, scan_of, tail):
    found = scan_of(compressed(content) + tail)
    assert found.reasons == [None] * 6 + ["broken_archive"]


def test_a_wrong_checksum_costs_only_the_end(content, scan_of):
    packed = bytearray(compressed(content, write_checksum=True))
    packed[-2] ^= 1
    assert scan_of(bytes(packed)).reasons == [None] * 6 + ["broken_archive"]


def test_a_window_that_takes_too_much_memory_is_refused(content, scan_of, monkeypatch):
    maker = zstandard.ZstdCompressor(
        compression_params=zstandard.ZstdCompressionParameters(window_log=29)
    ).compressobj()
    long = maker.compress(content) + maker.flush()
    with pytest.raises(ShardError, match=r"window of 512 MiB.*without --long") as refusal:
        scan_of(long)
    assert refusal.value.reason == "unreadable_shard"
    assert scan_of(compressed(content[:1024]) + long).reasons[-1] == "broken_archive"
    monkeypatch.setattr(inflating, "MOST_WINDOW_BYTES", 1 << 29)
    assert scan_of(long).reasons == [None] * 6


def gzip_zeros(head: bytes, size: int) -> bytes:
    """Bytes and then `size` zeros, in a few lines of gzip."""
    maker = zlib.compressobj(9, wbits=31)
    chunk = bytes(1 << 24)
    return maker.compress(head) + b"".join(maker.compress(chunk) for _ in range(size >> 24)) + maker.flush()


@pytest.mark.parametrize("kind", ["zeros", "member", "zstd"])
def test_a_bomb_ends_in_bounded_memory_and_keeps_what_came_before(content, scan_of, kind):
    sound = content.rstrip(b"\0")
    sound += bytes(-len(sound) % 512)
    huge = b"12345.jpg".ljust(124, b"\0") + b"%011o\0" % (1 << 32)
    block = huge.ljust(148, b"\0") + b" " * 8 + b"0" + bytes(355)
    member = block[:148] + b"%06o\0 " % sum(block) + block[156:]
    head = sound + member if kind == "member" else sound
    bomb = gzip_zeros(head, 1 << 30) if kind != "zstd" else compressed(head + bytes(1 << 29))
    assert len(bomb) < 2 << 20
    tracemalloc.start()
    found = scan_of(bomb)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found.reasons == [None] * 6 + ["inflation_bomb"]
    assert found.scan.size < inflating.FREE_BYTES + (1 << 20)
    assert peak < 32 << 20
    members = list(read_members(found.scan.container, found.index.slice(0, 6)))
    assert [len(parts) for parts in members] == [3] * 6


def test_zeros_alone_are_one_row(scan_of):
    found = scan_of(gzip_zeros(b"", 1 << 29))
    assert (found.keys, found.reasons) == ([None], ["inflation_bomb"])

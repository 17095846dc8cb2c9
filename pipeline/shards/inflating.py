"""Compressed containers: inflated in small pieces, damage held as a fault, bombs stopped.

What comes out is bounded whatever goes in: a piece is at most 128 KiB, a window at most `MOST_WINDOW_BYTES`, and a
stream that inflates beyond `MOST_RATIO` ends there as `inflation_bomb`.
"""

import io
import zlib
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

import zstandard

Take = Callable[[int], bytes]
"""Reads exactly n compressed bytes, fewer only at the end."""
Pieces = Callable[[Take], Iterator[bytes]]
"""Inflates what it takes, piece by piece, up to the end or to a `DamageError`."""

GZIP_MAGIC = b"\x1f\x8b"
GZIP_INPUT_BYTES = 16 << 10
GZIP_OUTPUT_BYTES = 64 << 10  # zlib keeps what it inflated when it then finds damage: at most this much before it

ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
ZSTD_SKIPPABLE = tuple(bytes([low]) + b"\x2a\x4d\x18" for low in range(0x50, 0x60))
ZSTD_RLE, ZSTD_RESERVED = 1, 3
MOST_WINDOW_BYTES = 128 << 20
"""What zstd's own command gives; a frame made with a longer one has to be asked for there too (`--long=31`)."""

MOST_RATIO = 500
"""Inflated over compressed bytes that no tar of images reaches: images do not shrink."""
FREE_BYTES = 256 << 20
"""Inflated bytes after which the ratio counts."""


class DamageError(Exception):
    """A compressed stream that does not go on; what it gave before is sound."""

    def __init__(self, reason: str, message: str) -> None:
        """`reason` is `truncated_shard` or `broken_archive`."""
        super().__init__(message)
        self.reason = reason


class Inflating(io.RawIOBase):
    """Inflates a stream. DamageError ends it and stands in `fault`; it raises nothing of its own."""

    def __init__(self, source: BinaryIO, pieces: Pieces) -> None:
        self.source = source
        self.fault: str | None = None
        """`truncated_shard`, `broken_archive` or `inflation_bomb` once the stream has ended badly."""
        self.fault_text = ""
        self._taken = self._given = 0
        self._held = memoryview(b"")
        self._pieces = pieces(self._take)

    def _take(self, size: int) -> bytes:
        chunk = self.source.read(size)
        self._taken += len(chunk)
        return chunk

    def readable(self) -> bool:
        """True."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill the buffer with inflated bytes; 0 at the end or at the first damage."""
        while not self._held and (piece := self._next()) is not None:
            self._held = memoryview(piece)
        count = min(len(buffer), len(self._held))
        buffer[:count] = self._held[:count]
        self._held = self._held[count:]
        return count

    def _next(self) -> bytes | None:
        try:
            piece = next(self._pieces, None)
        except DamageError as damage:
            self.fault, self.fault_text = damage.reason, str(damage)
            return None
        self._given += len(piece or b"")
        if self._given > FREE_BYTES and self._given > MOST_RATIO * self._taken:
            self.fault = "inflation_bomb"
            self.fault_text = f"{self._taken} bytes inflate to more than {self._given}"
            self._pieces = iter(())
            return None
        return piece


def pieces_of(head: bytes) -> Pieces | None:
    """What inflates a file that begins with these (at least 4) bytes; None where it is not compressed."""
    if head[:2] == GZIP_MAGIC:
        return gzip_pieces
    return zstd_pieces if head[:4] == ZSTD_MAGIC or head[:4] in ZSTD_SKIPPABLE else None


def gzip_pieces(take: Take) -> Iterator[bytes]:
    """Inflates gzip, member after member.

    Raises:
        DamageError: at the first of it.
    """
    inflater, held = zlib.decompressobj(wbits=31), b""
    while True:
        held = held or take(GZIP_INPUT_BYTES)
        try:
            piece = inflater.decompress(held, GZIP_OUTPUT_BYTES)
        except zlib.error as error:
            raise DamageError("broken_archive", f"broken gzip: {error}") from error
        yield piece
        if inflater.eof:
            if not (held := _next_member(take, inflater.unused_data)):
                return
            inflater = zlib.decompressobj(wbits=31)
        elif not held and not piece:  # zlib may hold output back, so only no input and no output is a cut
            raise DamageError("truncated_shard", "the gzip stream ends early")
        else:
            held = inflater.unconsumed_tail


def _next_member(take: Take, held: bytes) -> bytes:
    """Zeros may pad a gzip file; anything else must be another member."""
    while not (held := held.lstrip(b"\0")) and (held := take(GZIP_INPUT_BYTES)):
        pass
    return held


def zstd_pieces(take: Take) -> Iterator[bytes]:
    """Inflates zstd (RFC 8878), frame after frame.

    The walk from block to block is ours, since the library neither tells a cut stream from a finished one nor bounds
    what a piece of input inflates to; a block gives at most 128 KiB.

    Raises:
        DamageError: at the first of it.
    """
    while magic := take(4):
        if magic in ZSTD_SKIPPABLE:
            _skip(take, int.from_bytes(_exactly(take, 4), "little"))
        elif magic == ZSTD_MAGIC:
            yield from _frame(take)
        else:
            reason = "truncated_shard" if ZSTD_MAGIC.startswith(magic) else "broken_archive"
            raise DamageError(reason, "what follows a zstd frame is no zstd frame")


def _frame(take: Take) -> Iterator[bytes]:
    header = ZSTD_MAGIC + _exactly(take, 1)
    try:
        header += _exactly(take, zstandard.frame_header_size(header) - len(header))
        facts = zstandard.get_frame_parameters(header)
        if facts.window_size > MOST_WINDOW_BYTES:
            raise DamageError(
                "broken_archive",
                f"a zstd frame needs a window of {facts.window_size >> 20} MiB and gets {MOST_WINDOW_BYTES >> 20}: "
                "compress it again without --long",
            )
        inflater = zstandard.ZstdDecompressor(max_window_size=MOST_WINDOW_BYTES).decompressobj()
        yield inflater.decompress(header)
        for block in _blocks(take):
            yield inflater.decompress(block)
        if facts.has_checksum:
            yield inflater.decompress(_exactly(take, 4))
    except zstandard.ZstdError as error:
        raise DamageError("broken_archive", f"broken zstd: {error}") from error


def _blocks(take: Take) -> Iterator[bytes]:
    last = 0
    while not last:
        head = _exactly(take, 3)
        facts = int.from_bytes(head, "little")
        last, kind, size = facts & 1, facts >> 1 & 3, facts >> 3
        if kind == ZSTD_RESERVED:
            raise DamageError("broken_archive", "a zstd block of a kind that does not exist")
        yield head + _exactly(take, 1 if kind == ZSTD_RLE else size)


def _skip(take: Take, size: int) -> None:
    while size and (chunk := take(min(size, GZIP_INPUT_BYTES))):
        size -= len(chunk)
    if size:
        raise DamageError("truncated_shard", "the zstd stream ends early")


def _exactly(take: Take, size: int) -> bytes:
    chunk = take(size)
    if len(chunk) < size:
        raise DamageError("truncated_shard", "the zstd stream ends early")
    return chunk

"""Byte ranges of a tar, read again: neighbours are fetched together, a compressed tar is walked forward."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from operator import itemgetter
from typing import Protocol

from pipeline.shards.expand import filesystem_of, is_url
from pipeline.shards.inflating import pieces_of
from pipeline.shards.streams import BUFFER_BYTES, TarBytes, open_bytes
from schemas.errors import ShardError

Range = tuple[int, int]
"""Offset in the uncompressed tar, and size."""
NEAR_BYTES = {False: 64 << 10, True: 1 << 20}
"""Gaps up to this are read along with what lies around them: local, remote."""
MOST_FETCHED_BYTES = 16 << 20
MOST_PIECES = min(1024, os.sysconf("SC_IOV_MAX"))
"""Places that one read fills."""
ASIDE = memoryview(bytearray(NEAR_BYTES[False]))
"""Where the bytes of gaps go."""

Target = tuple[int, memoryview]
"""Offset in the uncompressed tar, and where as many bytes as there is room for belong."""


class Ranges(Protocol):
    """Reads ranges of one tar."""

    def fetch(self, ranges: Sequence[Range]) -> list[bytes]:
        """The bytes of each range, in the order asked for; short where the file ends."""
        ...

    def fill(self, targets: Sequence[Target]) -> None:
        """Read into places that are there.

        Raises:
            ShardError: `shard_changed`, where the file ends before one of them is full.
        """
        ...


@contextmanager
def open_ranges(path: str) -> Iterator[Ranges]:
    """Open a tar for reading by ranges.

    Raises:
        ShardError: `missing_shard`, `unreadable_shard`; `read_failed` in the middle.
    """
    file = open_bytes(path)
    try:
        if pieces_of(file.read(4)) is not None:
            yield Forward(path)
        elif is_url(path):
            yield Remote(path)
        else:
            yield Local(file.fileno(), path)
    finally:
        file.close()


def coalesced(ranges: Sequence[Range], near_bytes: int) -> list[Range]:
    """The fewest reads that cover all ranges when gaps up to `near_bytes` are read along, sorted by offset."""
    merged: list[Range] = []
    for offset, size in sorted(ranges):
        start, length = merged[-1] if merged else (offset, 0)
        stop = max(start + length, offset + size)
        if merged and offset - (start + length) <= near_bytes and stop - start <= MOST_FETCHED_BYTES:
            merged[-1] = (start, stop - start)
        else:
            merged.append((offset, size))
    return merged


def _picked(ranges: Sequence[Range], reads: Sequence[Range], chunks: Sequence[bytes]) -> list[bytes]:
    """Each range cut out of the read that covers it."""
    found: dict[Range, bytes] = {}
    place = 0
    for offset, size in sorted(ranges):
        while offset + size > sum(reads[place]) or offset < reads[place][0]:
            place += 1
        start = offset - reads[place][0]
        found[offset, size] = chunks[place][start : start + size]
    return [found[one] for one in ranges]


def changed(path: str) -> ShardError:
    """What is said of a container that does not hold what its index says."""
    return ShardError(
        f"{path} is not what it was when it was scored; run again to score it as it is now", "shard_changed"
    )


def _put(ranges: Ranges, targets: Sequence[Target], path: str) -> None:
    chunks = ranges.fetch([(offset, len(view)) for offset, view in targets])
    for (_, view), chunk in zip(targets, chunks, strict=True):
        if len(chunk) != len(view):
            raise changed(path)
        view[:] = chunk


def _runs(targets: Sequence[Target]) -> Iterator[tuple[int, int, list[memoryview]]]:
    """(start, stop, places) of the fewest reads that fill all targets, bytes of small gaps put aside."""
    start = stop = -1
    views: list[memoryview] = []
    for offset, view in sorted(targets, key=itemgetter(0)):
        gap = offset - stop
        if not views or not 0 <= gap <= len(ASIDE) or len(views) + 2 > MOST_PIECES:
            if views:
                yield start, stop, views
            start, views = offset, [view]
        elif gap:
            views += (ASIDE[:gap], view)
        else:
            views.append(view)
        stop = offset + len(view)
    if views:
        yield start, stop, views


class Local:
    """A file on this machine."""

    def __init__(self, descriptor: int, path: str) -> None:
        self.descriptor = descriptor
        self.path = path

    def fetch(self, ranges: Sequence[Range]) -> list[bytes]:
        """See `Ranges`."""
        reads = coalesced(ranges, NEAR_BYTES[False])
        return _picked(ranges, reads, [self._read(*one) for one in reads])

    def fill(self, targets: Sequence[Target]) -> None:
        """See `Ranges`; the kernel puts every byte where it belongs."""
        for start, stop, views in _runs(targets):
            try:
                whole = os.preadv(self.descriptor, views, start) == stop - start
            except OSError as error:
                raise ShardError(f"{self.path}: reading at {start} failed: {error}", "read_failed") from error
            if not whole:  # the file ends, or the kernel gives no more at a time
                for view in views:
                    _put(self, [(start, view)], self.path)
                    start += len(view)

    def _read(self, offset: int, size: int) -> bytes:
        try:
            chunk = os.pread(self.descriptor, size, offset)
            while 0 < len(chunk) < size and (more := os.pread(self.descriptor, size - len(chunk), offset + len(chunk))):
                chunk += more
        except OSError as error:
            raise ShardError(f"{self.path}: reading {size} bytes at {offset} failed: {error}", "read_failed") from error
        return chunk


class Remote:
    """An object behind a URL."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.filesystem, self.inside = filesystem_of(path)

    def fetch(self, ranges: Sequence[Range]) -> list[bytes]:
        """See `Ranges`."""
        reads = [one for one in coalesced(ranges, NEAR_BYTES[True]) if one[1]] or [(0, 0)]
        starts, stops = [start for start, _ in reads], [start + size for start, size in reads]
        try:
            chunks = self.filesystem.cat_ranges([self.inside] * len(reads), starts, stops, on_error="raise")
        except OSError as error:
            raise ShardError(f"{self.path}: reading ranges failed: {error}", "read_failed") from error
        return _picked(ranges, reads, chunks)

    def fill(self, targets: Sequence[Target]) -> None:
        """See `Ranges`."""
        _put(self, targets, self.path)


class Forward:
    """A compressed tar: one pass serves ranges that ascend; going back starts over."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.stream = TarBytes(path)
        self.position = 0

    def fetch(self, ranges: Sequence[Range]) -> list[bytes]:
        """See `Ranges`."""
        found: dict[Range, bytes] = {}
        for one in sorted(set(ranges)):
            found[one] = self._read(*one)
        return [found[one] for one in ranges]

    def fill(self, targets: Sequence[Target]) -> None:
        """See `Ranges`."""
        _put(self, targets, self.path)

    def _read(self, offset: int, size: int) -> bytes:
        if offset < self.position:
            self.stream.close()
            self.stream, self.position = TarBytes(self.path), 0
        while self.position < offset and (skipped := self.stream.read(min(BUFFER_BYTES, offset - self.position))):
            self.position += len(skipped)
        chunk: bytes = self.stream.read(size)
        self.position += len(chunk)
        return chunk

"""Bytes of a container: opened once, digested on the way, inflated where gzip's magic bytes say so."""

import hashlib
import io
import os
import stat
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO, cast

from pipeline.shards.expand import filesystem_of, is_url
from schemas.errors import ShardError

BUFFER_BYTES = 1 << 20
GZIP_MAGIC = b"\x1f\x8b"
GZIP_INPUT_BYTES = 16 << 10
GZIP_OUTPUT_BYTES = 64 << 10  # zlib keeps what it inflated when it then finds damage: at most this much before it


@contextmanager
def opening(path: str) -> Iterator[None]:
    """Turns what can fail when a shard is opened into a ShardError: `missing_shard`, `unreadable_shard`, `read_failed`.

    The last is no property of the shard, and may be over when it is tried again.
    """
    try:
        yield
    except FileNotFoundError as error:
        raise ShardError(f"{path} does not exist any more", "missing_shard") from error
    except OSError as error:
        lasting = isinstance(error, (PermissionError, IsADirectoryError))
        reason = "unreadable_shard" if lasting else "read_failed"
        raise ShardError(f"{path} cannot be opened: {error}; expected a readable file", reason) from error


def open_bytes(path: str) -> BinaryIO:
    """Open a local regular file (unbuffered) or a URL for reading.

    Raises:
        ShardError: see `opening`.
    """
    with opening(path):
        if is_url(path):
            filesystem, inside = filesystem_of(path)
            return cast(BinaryIO, filesystem.open(inside, "rb"))
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise ShardError(f"{path} is a directory or device; expected a file", "unreadable_shard")
        return cast(BinaryIO, open(path, "rb", buffering=0))


class Digesting(io.RawIOBase):
    """Passes a stream through and keeps the SHA-256 and the number of its bytes."""

    def __init__(self, source: BinaryIO, path: str) -> None:
        self.source = source
        self.path = path
        self.sha256 = hashlib.sha256()
        self.size = 0

    def readable(self) -> bool:
        """True."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill the buffer.

        Raises:
            ShardError: `read_failed`, when the disk or the network fails in the middle.
        """
        try:
            count = int(self.source.readinto(buffer))  # type: ignore[attr-defined]
        except OSError as error:
            raise ShardError(f"{self.path}: reading failed after {self.size} bytes: {error}", "read_failed") from error
        self.sha256.update(memoryview(buffer)[:count])
        self.size += count
        return count

    def close(self) -> None:
        """Close what lies below."""
        self.source.close()
        super().close()


class Inflating(io.RawIOBase):
    """Inflates gzip, member after member. Damage ends the stream and stands in `fault`; it raises nothing."""

    def __init__(self, source: BinaryIO) -> None:
        self.source = source
        self.fault: str | None = None
        """`truncated_shard` or `broken_archive` once the stream has ended badly."""
        self._inflater: Any = zlib.decompressobj(wbits=31)
        self._input = b""
        self._ended = False

    def readable(self) -> bool:
        """True."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill the buffer with inflated bytes; 0 at the end or at the first damage."""
        while not self._ended:
            chunk = self._inflate(min(len(buffer), GZIP_OUTPUT_BYTES))
            if chunk:
                buffer[: len(chunk)] = chunk
                return len(chunk)
        return 0

    def _inflate(self, most: int) -> bytes:
        self._input = self._input or self.source.read(GZIP_INPUT_BYTES)
        try:
            chunk: bytes = self._inflater.decompress(self._input, most)
        except zlib.error:
            self.fault, self._ended = "broken_archive", True
            return b""
        if self._inflater.eof:
            self._input = self._inflater.unused_data
            self._next_member()
        elif not self._input and not chunk:  # zlib may hold output back, so only no input and no output is a cut
            self.fault, self._ended = "truncated_shard", True
        else:
            self._input = self._inflater.unconsumed_tail
        return chunk

    def _next_member(self) -> None:
        """Zeros may pad a gzip file; anything else must be another member."""
        while True:
            self._input = self._input.lstrip(b"\0") or self.source.read(GZIP_INPUT_BYTES)
            if not self._input:
                self._ended = True
                return
            if self._input[0]:
                self._inflater = zlib.decompressobj(wbits=31)
                return


class TarBytes:
    """A tar's bytes from the beginning, compressed or not, with the digest of the file."""

    def __init__(self, path: str) -> None:
        self._digesting = Digesting(open_bytes(path), path)
        self._file = io.BufferedReader(self._digesting, BUFFER_BYTES)
        self._inflating = Inflating(cast(BinaryIO, self._file)) if self._file.peek(2)[:2] == GZIP_MAGIC else None
        inflated = io.BufferedReader(self._inflating, BUFFER_BYTES) if self._inflating else self._file
        self.read = inflated.read
        """Reads exactly n bytes, fewer only at the end."""

    @property
    def fault(self) -> str | None:
        """Why the compressed stream ended badly, if it did."""
        return self._inflating.fault if self._inflating else None

    @property
    def compressed_bytes(self) -> int:
        """Bytes of the file read so far."""
        return self._digesting.size

    def finish(self) -> str:
        """Read what is left of the file and return the SHA-256 of all of it, in hex."""
        while self._file.read(BUFFER_BYTES):
            pass
        return self._digesting.sha256.hexdigest()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def digest_file(path: str, copy_to: BinaryIO | None = None) -> tuple[str, int]:
    """SHA-256 in hex and size of a file; its bytes are copied along when a place for them is given.

    Raises:
        ShardError: see `open_bytes`; `read_failed` in the middle.
    """
    digesting = Digesting(open_bytes(path), path)
    with digesting:
        while chunk := digesting.read(BUFFER_BYTES):
            if copy_to is not None:
                copy_to.write(chunk)
    return digesting.sha256.hexdigest(), digesting.size

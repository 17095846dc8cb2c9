"""Bytes of a container: opened once, digested on the way, inflated where its first bytes say so."""

import io
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO, cast

from blake3 import blake3

from pipeline.shards.expand import filesystem_of, is_url
from pipeline.shards.inflating import Inflating, pieces_of
from schemas.errors import ShardError

BUFFER_BYTES = 1 << 20


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
    """Passes a stream through and keeps the BLAKE3 hash and the number of its bytes."""

    def __init__(self, source: BinaryIO, path: str) -> None:
        self.source = source
        self.path = path
        self.hash = blake3()
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
        self.hash.update(memoryview(buffer)[:count])
        self.size += count
        return count

    def close(self) -> None:
        """Close what lies below."""
        self.source.close()
        super().close()


class TarBytes:
    """A tar's bytes from the beginning, compressed or not, with the digest of the file."""

    def __init__(self, path: str) -> None:
        self._digesting = Digesting(open_bytes(path), path)
        self._file = io.BufferedReader(self._digesting, BUFFER_BYTES)
        pieces = pieces_of(self._file.peek(4)[:4])
        self._inflating = Inflating(cast(BinaryIO, self._file), pieces) if pieces else None
        inflated = io.BufferedReader(self._inflating, BUFFER_BYTES) if self._inflating else self._file
        self.read = inflated.read
        """Reads exactly n bytes, fewer only at the end."""
        self.readinto = inflated.readinto
        """Fills a buffer, and gives less only at the end."""

    @property
    def fault(self) -> str | None:
        """Why the compressed stream ended badly, if it did."""
        return self._inflating.fault if self._inflating else None

    @property
    def fault_text(self) -> str:
        """The same in words; empty where nothing is wrong."""
        return self._inflating.fault_text if self._inflating else ""

    @property
    def compressed_bytes(self) -> int:
        """Bytes of the file read so far."""
        return self._digesting.size

    def finish(self) -> str:
        """Read what is left of the file and return the BLAKE3 of all of it, in hex."""
        while self._file.read(BUFFER_BYTES):
            pass
        return self._digesting.hash.hexdigest()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def digest_file(path: str, copy_to: BinaryIO | None = None) -> tuple[str, int]:
    """BLAKE3 in hex and size of a file; its bytes are copied along when a place for them is given.

    Raises:
        ShardError: see `open_bytes`; `read_failed` in the middle.
    """
    digesting = Digesting(open_bytes(path), path)
    with digesting:
        while chunk := digesting.read(BUFFER_BYTES):
            if copy_to is not None:
                copy_to.write(chunk)
    return digesting.hash.hexdigest(), digesting.size

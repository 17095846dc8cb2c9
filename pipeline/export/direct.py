"""Writes large files past the page cache where the system lets us: straight from memory to the disk.

An export is forced to the disk before it gets its name, and is hardly ever read again by who wrote it. By way of the
cache every byte would be copied once more, into pages that the system has to find first and to write back then.
"""

import errno
import fcntl
import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, wait
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt

ALIGNMENT = 4096
"""Bytes: of the memory that is written from. Disks ask for 512 or for this."""
BYPASS = getattr(os, "O_DIRECT", 0)


def aligned(size: int) -> npt.NDArray[np.uint8]:
    """(size,) bytes at an address that a disk can be written from; they hold anything."""
    room = np.empty(size + ALIGNMENT, np.uint8)
    start = -room.ctypes.data % ALIGNMENT
    return room[start : start + size]


class Room:
    """Memory that is used again: what a system hands out anew it has to find and to clear first."""

    def __init__(self, most: int) -> None:
        """`most` bytes are kept; who asks for more gets them once."""
        self._most = most
        self._held = aligned(0)

    def __call__(self, size: int) -> npt.NDArray[np.uint8]:
        """See `aligned`; what was handed out before is written over."""
        if size > self._most:
            return aligned(size)
        if size > len(self._held):
            self._held = aligned(min(self._most, size + size // 4))
        return self._held[:size]


class DirectFile:
    """A new file that is written from its beginning to its end, by another thread."""

    def __init__(self, descriptor: int, writer: Executor) -> None:
        self._descriptor = descriptor
        self._writer = writer
        self._begun: deque[Future[None]] = deque()

    def write(self, content: bytes | memoryview) -> None:
        """Append all of it, while the caller goes on; it must stay as it is until the file is closed.

        Raises:
            OSError: the disk is full, or fails; here or at a later piece.
        """
        self._begun.append(self._writer.submit(self._put, memoryview(content)))
        while self._begun and self._begun[0].done():
            self._begun.popleft().result()

    def finish(self) -> None:
        """Wait for all pieces.

        Raises:
            OSError: see `write`.
        """
        while self._begun:
            self._begun.popleft().result()

    def give_up(self) -> None:
        """Let go of all pieces that are not written yet."""
        for piece in self._begun:
            piece.cancel()
        wait(self._begun)

    def _put(self, view: memoryview) -> None:
        while view:
            try:
                view = view[os.write(self._descriptor, view) :]
            except OSError as error:
                if error.errno != errno.EINVAL or not self._bypasses():
                    raise
                # This piece lies, begins or ends where the disk cannot take it as it is: it goes by way of the cache.
                fcntl.fcntl(self._descriptor, fcntl.F_SETFL, self._flags() & ~BYPASS)

    def _flags(self) -> int:
        return fcntl.fcntl(self._descriptor, fcntl.F_GETFL)

    def _bypasses(self) -> bool:
        return bool(self._flags() & BYPASS)


Create = Callable[[Path], DirectFile]
"""Opens a file that is closed by who hands this out."""


@contextmanager
def open_direct(path: Path, writer: Executor) -> Iterator[DirectFile]:
    """Create a file, or empty one that is there; at the end of the block everything is written.

    Args:
        path: of the file.
        writer: one thread, which may end the block as well.

    Raises:
        OSError: it cannot be written.
    """
    usual = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_CLOEXEC", 0)
    try:
        descriptor = os.open(path, usual | BYPASS, 0o666)
    except OSError as error:
        if error.errno != errno.EINVAL:  # what a file system says that knows no other way than its cache
            raise
        descriptor = os.open(path, usual, 0o666)
    file = DirectFile(descriptor, writer)
    try:
        yield file
        file.finish()
    finally:
        file.give_up()
        os.close(descriptor)

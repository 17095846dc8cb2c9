"""A tar's bytes in windows, with the headers that hold nothing unusual parsed for a whole window at once.

Nearly every header of a training set is plain: a regular file, a short name, a size in octal digits. What else there
may be, and what is wrong, is not in the table and is left to who parses headers one by one.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pipeline.shards.tar_header import BLOCK, ENCODING

WINDOW_BYTES = 2 << 20
MAGIC = slice(257, 262)
SIZE, SIZE_END, CHECKSUM, CHECKSUM_END = slice(124, 135), 135, slice(148, 154), slice(154, 156)
KIND, PREFIX = 156, 345

MOST_IN_RUN = 64
"""Members: enough to share what a run costs, few enough that it may be in vain."""

Plain = tuple[str, int]
"""Name and size of a regular file."""


class Run(NamedTuple):
    """Regular files that come next, each right behind the one before; all but the last lie in the window whole."""

    names: list[str]
    starts: list[int]
    """Of their data in `window`."""
    sizes: list[int]
    window: memoryview
    at: int
    """Of the first header in `window`."""


class TarWindow:
    """Reads on and on; what it hands out are views of the window where they lie in one."""

    def __init__(self, read: Callable[[int], bytes]) -> None:
        """`read` gives exactly n bytes, fewer only at the end."""
        self._read = read
        self._bytes = memoryview(b"")
        self._at = 0
        self._plain: dict[int, Plain] = {}

    def take(self, size: int) -> bytes | memoryview:
        """The next bytes; fewer only at the end."""
        start, stop = self._at, self._at + size
        if stop <= len(self._bytes):
            self._at = stop
            return self._bytes[start:stop]
        pieces = [self._bytes[start:]]
        while (missing := size - sum(map(len, pieces))) and self._next():
            pieces.append(self._bytes[:missing])
            self._at = len(pieces[-1])
        return b"".join(pieces)

    def plain(self) -> Plain | None:
        """What a header says that comes next, if it is a plain one."""
        if self._at == len(self._bytes):
            self._next()
        return self._plain.get(self._at)

    def run(self) -> Run:
        """As many plain headers as come next in this window, at most `MOST_IN_RUN`; nothing is taken."""
        names, starts, sizes, at = [], [], [], self._at
        while (plain := self._plain.get(at)) is not None and len(names) < MOST_IN_RUN:
            name, size = plain
            names.append(name)
            starts.append(at + BLOCK)
            sizes.append(size)
            at += BLOCK + size + -size % BLOCK
        return Run(names, starts, sizes, self._bytes, self._at)

    def _next(self) -> bool:
        window = self._read(WINDOW_BYTES)
        self._bytes, self._at, self._plain = memoryview(window), 0, plain_headers(window)
        return bool(window)


def plain_headers(window: bytes) -> dict[int, Plain]:
    """Place -> (name, size) of every block that is a plain header, if it is a header at all and not a member's data."""
    blocks = np.frombuffer(window, np.uint8, len(window) // BLOCK * BLOCK).reshape(-1, BLOCK)
    places = np.flatnonzero(blocks[:, MAGIC.start] == ord("u"))
    found = blocks[places]
    size, size_is_octal = _octal(found[:, SIZE])
    checksum, checksum_is_octal = _octal(found[:, CHECKSUM])
    field = slice(CHECKSUM.start, CHECKSUM_END.stop)
    total = found.sum(1, np.uint32) - found[:, field].sum(1, np.uint32) + 8 * ord(" ")
    plain = size_is_octal & checksum_is_octal & (checksum == total)
    plain &= (found[:, MAGIC] == np.frombuffer(b"ustar", np.uint8)).all(1) & (found[:, KIND] == ord("0"))
    plain &= (found[:, PREFIX] == 0) & _blank(found[:, SIZE_END]) & _blank(found[:, CHECKSUM_END]).all(1)
    names = np.ascontiguousarray(found[plain, :100]).view("S100").ravel().tolist()
    texts = [name.split(b"\0", 1)[0].decode(*ENCODING) for name in names]
    return dict(zip((places[plain] * BLOCK).tolist(), zip(texts, size[plain].tolist(), strict=True), strict=True))


def _octal(digits: npt.NDArray[np.uint8]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """(n,) numbers, and whether they are nothing but octal digits."""
    values = digits - np.uint8(ord("0"))
    return values @ 8 ** np.arange(digits.shape[1])[::-1], np.all(values < 8, axis=1)


def _blank(column: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_]:
    """Where NUL or a space ends a number."""
    blank: npt.NDArray[np.bool_] = (column == 0) | (column == ord(" "))
    return blank

"""A tar's bytes in windows, with the headers that hold nothing unusual parsed for a whole window at once.

Nearly every header of a training set is plain: a regular file, a short name, a size in octal digits. What else there
may be, and what is wrong, is not in the table and is left to who parses headers one by one.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.shards.tar_header import BLOCK, ENCODING

WINDOW_BYTES = 2 << 20
MAGIC = slice(257, 262)
SIZE, SIZE_END, CHECKSUM, CHECKSUM_END = slice(124, 135), 135, slice(148, 154), slice(154, 156)
KIND, PREFIX = 156, 345

Plain = tuple[str, int]
"""Name and size of a regular file."""


@dataclass(frozen=True)
class Heads:
    """The plain headers of a window, in columns."""

    names: list[str]
    sizes: list[int]
    starts: list[int]
    """Where the data of each begins in the window; it may end beyond."""
    number: dict[int, int]
    """Place of a header in the window -> its number."""
    followed: list[bool]
    """Whether the next one stands right behind the data of each, which is whole then."""


class TarWindow:
    """Reads on and on, always into the same memory: what a system hands out anew it has to find and to clear first."""

    def __init__(self, readinto: Callable[[memoryview], int]) -> None:
        """`readinto` fills a buffer, and gives less only at the end."""
        self._readinto = readinto
        self._room = memoryview(bytearray(WINDOW_BYTES))
        self.bytes = self._room[:0]
        """What it holds until more is read."""
        self.at = 0
        """Of what comes next in `bytes`."""
        self.heads = plain_headers(self.bytes)

    def take(self, size: int) -> bytes:
        """The next bytes; fewer only at the end."""
        start, self.at = self.at, min(self.at + size, len(self.bytes))
        pieces = [bytes(self.bytes[start : self.at])]
        while (missing := size - sum(map(len, pieces))) and self._next():
            self.at = min(missing, len(self.bytes))
            pieces.append(bytes(self.bytes[: self.at]))
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def plain(self) -> Plain | None:
        """What a header says that comes next, if it is a plain one."""
        if self.at == len(self.bytes):
            self._next()
        if (number := self.heads.number.get(self.at)) is None:
            return None
        return self.heads.names[number], self.heads.sizes[number]

    def _next(self) -> bool:
        self.bytes, self.at = self._room[: self._readinto(self._room)], 0
        self.heads = plain_headers(self.bytes)
        return bool(self.bytes)


def plain_headers(window: bytes | memoryview) -> Heads:
    """Every block that is a plain header, if it is a header at all and not a member's data."""
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
    headers, size = places[plain] * BLOCK, size[plain]
    starts = headers + BLOCK
    behind = starts + size + -size % BLOCK
    followed = [*(behind[:-1] == headers[1:]).tolist(), False][: len(names)]
    number = dict(zip(headers.tolist(), range(len(names)), strict=True))
    return Heads(_texts(names), size.tolist(), starts.tolist(), number, followed)


def _texts(names: list[bytes]) -> list[str]:
    """Each up to its first NUL."""
    lines = b"\n".join(names)
    if lines.isascii() and b"\0" not in lines and lines.count(b"\n") == len(names) - 1:
        return lines.decode().split("\n")
    return [name.split(b"\0", 1)[0].decode(*ENCODING) for name in names]


def _octal(digits: npt.NDArray[np.uint8]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """(n,) numbers, and whether they are nothing but octal digits."""
    values = digits - np.uint8(ord("0"))
    return values @ 8 ** np.arange(digits.shape[1])[::-1], np.all(values < 8, axis=1)


def _blank(column: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_]:
    """Where NUL or a space ends a number."""
    blank: npt.NDArray[np.bool_] = (column == 0) | (column == ord(" "))
    return blank

"""One 512-byte tar header, and the pax records that may stand before it (POSIX.1-2001 pax, GNU tar, v7).

The standard library's `tarfile.TarInfo.frombuf` parses eleven fields where a walk needs three, at a third of the speed
of everything else together; a test holds this parser against it.
"""

import tarfile
import zlib
from typing import NamedTuple

BLOCK = 512
ENCODING = ("utf-8", "backslashreplace")  # a name that is not UTF-8 stays readable and distinct
ADLER = 65521


class Header(NamedTuple):
    """What a walk needs of a header."""

    name: str
    kind: bytes
    """The type flag; a directory in old style is a directory here too."""
    size: int
    more_sparse: bool
    """Blocks with more of an old GNU sparse map follow."""


def parse_header(block: bytes) -> Header | None:
    """Parse one block; None when its checksum or size is wrong, i.e. it is no header."""
    stored, size = number(block[148:156]), number(block[124:136])
    if stored is None or size is None or size < 0 or not _sums_to(block, stored):
        return None
    name, kind = block[:100].split(b"\0", 1)[0], block[156:157]
    if block[345] and block[257:263] == b"ustar\0":  # GNU's older format keeps times where POSIX has the prefix
        name = block[345:500].split(b"\0", 1)[0] + b"/" + name
    if kind == tarfile.AREGTYPE and name.endswith(b"/"):
        kind = tarfile.DIRTYPE
    return Header(name.decode(*ENCODING), kind, size, kind == tarfile.GNUTYPE_SPARSE and bool(block[482]))


def number(field: bytes) -> int | None:
    """A numeric field: octal text, or base 256 after GNU tar; None when it is neither."""
    try:
        return int(field.rstrip(b"\0 ") or b"0", 8)
    except ValueError:
        pass
    if field[0] in (0x80, 0xFF):
        return int.from_bytes(field[1:], "big") - (256 ** (len(field) - 1) if field[0] == 0xFF else 0)
    try:
        return int(field.split(b"\0", 1)[0].strip() or b"0", 8)
    except ValueError:
        return None


def _sums_to(block: bytes, stored: int) -> bool:
    """Whether the bytes add up to `stored`, the checksum field counted as spaces; old tars added signed bytes."""
    blanked = block[:148] + b"        " + block[156:]
    # Adler-32's low half is 1 + the sum modulo 65521, in a tenth of the time; ASCII headers stay below that.
    if stored < ADLER - 1 and zlib.adler32(blanked) & 0xFFFF == stored + 1 and blanked.isascii():
        return True
    unsigned = sum(blanked)
    return stored in (unsigned, unsigned - 256 * sum(byte > 127 for byte in blanked))


def pax_records(body: bytes) -> dict[str, str]:
    r"""The `length key=value\n` records of a pax header.

    Raises:
        ValueError: the records do not add up to the body.
    """
    records: dict[str, str] = {}
    place = 0
    while place < len(body) and body[place]:
        space = body.index(b" ", place, place + 20)
        stop = place + int(body[place:space])
        key, equals, value = body[space + 1 : stop - 1].partition(b"=")
        if not equals or stop > len(body) or stop <= space or body[stop - 1 : stop] != b"\n":
            raise ValueError(f"broken record at byte {place}")
        records[key.decode(*ENCODING)] = value.decode(*ENCODING)
        place = stop
    return records

"""Walks a tar front to back: every header, every data range, exact byte accounting, no trust in what headers say.

The walk is ours because the standard library's tarfile stops silently at damage, believes sizes that cannot be, and
does not tell which bytes belong to whom. POSIX.1-2001 pax, GNU long names, old GNU sparse and concatenated archives
are understood.
"""

import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field

import xxhash

from pipeline.shards.streams import TarBytes
from pipeline.shards.tar_header import BLOCK, ENCODING, Header, parse_header, pax_records
from pipeline.shards.tar_window import TarWindow
from schemas.errors import ShardError

ZEROS = bytes(BLOCK)
CHUNK_BYTES = 4 << 20
MOST_HELD_BYTES = 256 << 20
"""A larger member is hashed but not held in memory: no image of a training set is this large."""
MOST_EXTENSION_BYTES = 1 << 20
"""A longer name or pax record is taken for damage."""
REGULAR = (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE)
WITHOUT_DATA = (tarfile.LNKTYPE, tarfile.SYMTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE)
SPARSE = "GNU.sparse"
"""Stands for all records of that prefix: the rest of what extension headers say is not kept."""
PAX = (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE)


@dataclass(slots=True)
class Entry:
    """One member: what its headers say, where its data lies, what its bytes hash to."""

    name: str
    regular: bool
    """False: link, device, sparse file or something unknown; its data, if any, is skipped."""
    offset: int
    """Of the data, in the uncompressed tar."""
    size: int
    data: bytes | None
    """None when it is no regular file, is cut, or is larger than `MOST_HELD_BYTES`."""
    digest: str | None
    """XXH3-128 of the data in hex; None when `data` was not read in full."""
    stop: int
    """End of the padding."""
    cut: bool = False
    """The file ends inside the data."""
    suffix: str = ""
    """What follows the first dot of the name's last part; set by who groups members."""


@dataclass
class _Extension:
    """What extension headers say of the next member."""

    name: str | None = None
    records: dict[str, str] = field(default_factory=dict)


class TarWalk:
    """One pass over a tar. Iterate it to the end, then ask how it ended."""

    def __init__(self, stream: TarBytes, path: str) -> None:
        self.stream = stream
        self.path = path
        self.position = 0
        """Bytes walked; the size of the uncompressed tar in the end."""
        self.reason: str | None = None
        """`truncated_shard`, `broken_archive` or `inflation_bomb` when what follows the last entry is no tar."""
        self.fragment_name = ""
        """As much as is left of the name in a header that is cut or damaged."""
        self.marked_end = False
        """Whether the last thing seen was an end-of-archive block."""
        self.window = TarWindow(stream.readinto)
        self._globals: dict[str, str] = {}
        self._headers = 0

    def __iter__(self) -> Iterator[Entry]:
        """Every member but directories, in order; a member that is cut comes last.

        Raises:
            ShardError: `empty_shard` for no bytes, `unreadable_shard` when the first block is no header.
        """
        extension = _Extension()
        yield from self._plain_entries()
        while (header := self._header(extension)) is not None:
            if header.kind in (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, tarfile.XGLTYPE, *PAX):
                extension = self._extended(header, extension)
                continue
            entry = self._entry(header, self._globals | extension.records, extension.name)
            if entry is not None and header.kind != tarfile.DIRTYPE:
                yield entry
            if self.reason is not None:
                break
            extension = _Extension()
            yield from self._plain_entries()
        self._drain()

    def _plain_entries(self) -> Iterator[Entry]:
        """Regular files whose headers hold nothing unusual, as many as come next."""
        if self._globals:
            return  # they may say something of every member
        while self.reason is None and (plain := self.window.plain()) is not None and plain[1] <= CHUNK_BYTES:
            self.window.take(BLOCK)
            self.position += BLOCK
            self.marked_end = False
            self._headers += 1
            entry = Entry(plain[0], True, self.position, plain[1], None, None, self.position)
            self._data(entry)
            entry.stop = self.position
            yield entry

    def next_name(self) -> str | None:
        """Name of the member that comes next, if its header is a plain one; to be asked between members."""
        if self._globals or self.reason is not None or (plain := self.window.plain()) is None:
            return None
        return plain[0]

    def pass_over(self, size: int, headers: int) -> None:
        """Go on behind members of the window that somebody else has looked at.

        Args:
            size: bytes of all of them, headers and padding included.
            headers: how many they are.
        """
        self.window.at += size
        self.position += size
        self._headers += headers
        self.marked_end = False

    def _read(self, size: int) -> bytes:
        chunk = self.window.take(size)
        self.position += len(chunk)
        return chunk

    def _header(self, extension: _Extension) -> Header | None:
        """The next header; None at the end, with `reason` set when it is a bad end."""
        while (block := self._read(BLOCK)) == ZEROS:
            self.marked_end = True
        if self.reason is not None:
            return None
        if len(block) < BLOCK:
            self._end(block, extension)
            return None
        header = parse_header(block)
        if header is None:
            self._damage(block)
            return None
        self.marked_end = False
        self._headers += 1
        return header

    def _end(self, block: bytes, extension: _Extension) -> None:
        if not self.position:
            reason = "unreadable_shard" if self.stream.fault else "empty_shard"
            found = self.stream.fault_text or "it holds no bytes"
            raise ShardError(f"{self.path}: {found}; expected a tar", reason)
        name = extension.records.get("path") or extension.name
        if not block.strip(b"\0") and name is None:
            return
        self._damage(block)
        self.reason, self.fragment_name = "truncated_shard", name or self.fragment_name

    def _damage(self, block: bytes) -> None:
        if not self._headers:
            what = "its first block is no tar header" if len(block) == BLOCK else f"{len(block)} bytes and no header"
            raise ShardError(f"{self.path} is no tar: {what}", "unreadable_shard")
        name = block[:100].split(b"\0")[0].decode(*ENCODING)
        # Writers put extension headers under names of their own making.
        self.fragment_name = "" if "@LongLink" in name or "PaxHeader" in name else name
        self.reason = "broken_archive"

    def _extended(self, header: Header, extension: _Extension) -> _Extension:
        """Read a long name or pax records; what is damaged ends the walk."""
        if header.size > MOST_EXTENSION_BYTES:
            self.reason = "broken_archive"
            return extension
        body = self._read(header.size)
        if len(body) < header.size:
            self.reason = "truncated_shard"
            return extension
        self._skip_padding(header.size)
        if header.kind == tarfile.GNUTYPE_LONGNAME:
            extension.name = body.split(b"\0")[0].decode(*ENCODING)
        elif header.kind != tarfile.GNUTYPE_LONGLINK:
            self._records(header, body, extension)
        return extension

    def _records(self, header: Header, body: bytes, extension: _Extension) -> None:
        try:
            records = pax_records(body)
        except ValueError:
            self.reason = "broken_archive"
            return
        known = {name: value for name, value in records.items() if name in ("path", "size")}
        if any(name.startswith("GNU.sparse") for name in records):
            known[SPARSE] = ""
        (self._globals if header.kind == tarfile.XGLTYPE else extension.records).update(known)

    def _entry(self, header: Header, records: dict[str, str], long_name: str | None) -> Entry | None:
        name = records.get("path") or long_name or header.name
        size = _size(records.get("size"), header.size)
        if size is None:
            self.reason = "broken_archive"
            return None
        sparse = header.kind == tarfile.GNUTYPE_SPARSE or SPARSE in records
        self._skip_sparse_map(header)
        entry = Entry(name, header.kind in REGULAR and not sparse, self.position, size, None, None, self.position)
        if header.kind not in WITHOUT_DATA:
            self._data(entry)
        else:
            entry.size = 0
        entry.stop = self.position
        return entry

    def _skip_sparse_map(self, header: Header) -> None:
        more = header.more_sparse
        while more and len(block := self._read(BLOCK)) == BLOCK:
            more = bool(block[504])

    def _data(self, entry: Entry) -> None:
        if entry.size <= CHUNK_BYTES and entry.regular:
            entry.data = self._read(entry.size)
            read, entry.digest = len(entry.data), xxhash.xxh3_128_hexdigest(entry.data)
        else:
            read = self._large(entry)
        if read == entry.size:
            self._skip_padding(entry.size)
        if read < entry.size:
            entry.cut, entry.data, entry.digest = True, None, None
            self.reason = "truncated_shard"

    def _large(self, entry: Entry) -> int:
        """Read chunk by chunk, since a header may promise more than there is."""
        hold = entry.regular and entry.size <= MOST_HELD_BYTES
        digest, chunks, left = xxhash.xxh3_128(), [], entry.size
        while left and (chunk := self._read(min(left, CHUNK_BYTES))):
            digest.update(chunk)
            left -= len(chunk)
            if hold:
                chunks.append(chunk)
        entry.data = b"".join(chunks) if hold else None
        entry.digest = digest.hexdigest()
        return entry.size - left

    def _skip_padding(self, size: int) -> None:
        if self.reason is None:
            self._read(-size % BLOCK)

    def _drain(self) -> None:
        """Walk to the end of the stream; damage in the compression counts like damage in the tar."""
        while self._read(CHUNK_BYTES):
            pass
        if self.stream.fault is not None:
            self.reason = self.stream.fault


def _size(text: str | None, otherwise: int) -> int | None:
    if text is None:
        return otherwise
    return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else None

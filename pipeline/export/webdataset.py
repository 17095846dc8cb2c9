"""WebDataset: tars of `KEY.suffix` members, and a shard index for webdataset's indexed readers (wids)."""

import hashlib
import json
import tarfile
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from pipeline.export.block import BLOCK, Block
from pipeline.export.direct import Create, DirectFile, open_direct
from pipeline.export.format import Format, Sample, by_split
from pipeline.sidecars import write_json

NAME_BYTES = 100
PIECE_BYTES = 4 << 20
"""What is written and hashed at a time."""
# What stands between a header's name and size, and after its size: mode 444, owner 0, time 0, a regular file.
BEFORE_SIZE = b"0000444\x00" + b"0000000\x00" * 2
AFTER_SIZE = (b"00000000000\x00" + b" " * 8 + b"0" + bytes(100) + b"ustar\x0000").ljust(BLOCK - 136, b"\0")
HEADER = bytes(NAME_BYTES) + BEFORE_SIZE + bytes(11) + b"\0" + AFTER_SIZE
SIZE, CHECKSUM = slice(124, 135), slice(148, 154)
MOST_SIZE = 8**11 - 1
"""What eleven octal digits hold."""


@dataclass(frozen=True)
class WebDataset(Format):
    """Tars whose bytes depend on nothing but names and contents."""

    title: ClassVar[str] = "WebDataset"
    names: ClassVar[str] = "{folder}{number:05d}.tar"
    reading: ClassVar[str] = (
        "Each sample holds the members it had in its source, byte for byte, under the key `UID` or `UID-REPEAT`;\n"
        "`index.json` is the shard index that webdataset's indexed readers (wids) take."
    )

    def write(self, path: Path, samples: Iterator[Sample], count: int) -> str:
        """Write one tar: fixed names, order, times and padding."""
        with ThreadPoolExecutor(1) as writer, open_direct(path, writer) as out:
            return _pour((Block.of([sample]) for sample in samples), out)

    def write_blocks(self, path: Path, blocks: Iterator[Block], count: int, create: Create) -> str:
        """Write one tar: fixed names, order, times and padding."""
        return _pour(blocks, create(path))

    def beside(self, folder: Path, name: str, shards: list[dict[str, Any]]) -> None:
        """Write an index.json per split."""
        for split, part in by_split(shards).items():
            index = [
                {"url": Path(shard["url"]).name, "nsamples": shard["nsamples"], "filesize": shard["filesize"]}
                for shard in part
            ]
            wids = {"__kind__": "wids-shard-index-v1", "wids_version": 1, "name": name, "shardlist": index}
            write_json(wids, folder / split / "index.json")


def _pour(blocks: Iterator[Block], out: DirectFile) -> str:
    """Write a tar of all samples; its SHA-256."""
    digest, size = hashlib.sha256(), 0
    for piece in (piece for block in blocks for piece in _pieces(block)):
        out.write(piece)
        digest.update(piece)
        size += len(piece)
    end = bytes(2 * BLOCK)
    end += bytes(-(size + len(end)) % tarfile.RECORDSIZE)
    out.write(end)
    digest.update(end)
    return digest.hexdigest()


def _pieces(block: Block) -> Iterator[bytes | memoryview]:
    """A block's part of the tar in pieces of about `PIECE_BYTES`."""
    headers = None if any(block.scores) else tar_headers(block.names(), block.sizes)
    if headers is None:
        yield from _joined(block)
        return
    block.content.reshape(-1, BLOCK)[block.starts // BLOCK - 1] = headers
    for start in range(0, len(block.content), PIECE_BYTES):
        yield block.content.data[start : start + PIECE_BYTES]


def _joined(block: Block) -> Iterator[bytes]:
    """The same where a header takes more than its place, or a sample has a member more."""
    held: list[bytes] = []
    size = 0
    for sample in block.samples():
        for suffix, content in _members(sample):
            held += (tar_header(f"{sample.key}.{suffix}", len(content)), content, bytes(-len(content) % BLOCK))
            size += len(content) + BLOCK
        if size > PIECE_BYTES:
            yield b"".join(held)
            held, size = [], 0
    yield b"".join(held)


def _members(sample: Sample) -> list[tuple[str, bytes]]:
    if not sample.scores:
        return sample.members
    scores = json.dumps(sample.scores, sort_keys=True).encode()
    return sorted([*sample.members, ("cuvee.json", scores)])


def tar_headers(names: Sequence[str], sizes: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8] | None:
    """(n, 512) what `tar_header` gives for each of n members, all at once; None where one takes more than a block."""
    plain = [name.encode(errors="surrogateescape") for name in names]
    usual = all(len(name) <= NAME_BYTES and name.isascii() for name in plain)
    if not plain or not usual or sizes.max() > MOST_SIZE:
        return None
    headers = np.empty((len(plain), BLOCK), np.uint8)
    headers[:] = np.frombuffer(HEADER, np.uint8)
    headers[:, :NAME_BYTES] = np.array(plain, f"S{NAME_BYTES}").view(np.uint8).reshape(-1, NAME_BYTES)
    headers[:, SIZE] = _octal(sizes, 11)
    headers[:, CHECKSUM] = _octal(headers.sum(1, np.int64), 6)
    headers[:, CHECKSUM.stop] = 0
    return headers


def _octal(numbers: npt.NDArray[np.int64], digits: int) -> npt.NDArray[np.int64]:
    """(n, digits) as ASCII."""
    shifts = 3 * np.arange(digits - 1, -1, -1)
    return (numbers[:, None] >> shifts & 7) + ord("0")


def tar_header(name: str, size: int) -> bytes:
    """The header block of a regular file, pax records before it where name or size need them.

    Byte for byte what the standard library's `tarfile` writes; it takes five times as long for the usual case.
    """
    plain = name.encode(errors="surrogateescape")
    if len(plain) > NAME_BYTES or size > MOST_SIZE or not plain.isascii():
        header = tarfile.TarInfo(name)
        header.size, header.mode = size, 0o444
        return header.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")
    block = plain.ljust(NAME_BYTES, b"\0") + BEFORE_SIZE + b"%011o\0" % size + AFTER_SIZE
    # Adler-32's low half is 1 + the sum modulo 65521, which ASCII blocks never reach.
    return block[:148] + b"%06o\0 " % ((zlib.adler32(block) & 0xFFFF) - 1) + block[156:]

"""What the tests of ingest share: small tars with real PNG bytes, and a scan held to its accounting."""

import io
import random
import struct
import tarfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import SimpleNamespace

import pyarrow as pa
import pytest
import zstandard

from pipeline.shards import Container, ShardScan, Slice
from schemas.tables import INDEX

Member = tuple[str, bytes]


def png(seed: int, side: int = 8) -> bytes:
    """A real PNG of random pixels."""
    noise = random.Random(seed)
    lines = b"".join(b"\0" + noise.randbytes(side * 3) for _ in range(side))

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")


def sample(number: int) -> list[Member]:
    """Image, caption and JSON of one sample; sizes differ, so that padding does."""
    key = f"{number:05d}"
    return [
        (f"{key}.png", png(number, 4 + number % 9)),
        (f"{key}.txt", f"caption {number} é".encode()),
        (f"{key}.json", b'{"n": %d}' % number),
    ]


def tar_bytes(members: Sequence[Member | tarfile.TarInfo], form: int = tarfile.PAX_FORMAT, mode: str = "w") -> bytes:
    """A tar of (name, content) pairs, or of entries without data; `w:zst` compresses it with zstd."""
    if mode == "w:zst":
        return zstandard.ZstdCompressor(write_checksum=True).compress(tar_bytes(members, form))
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode=mode, format=form) as tar:
        for member in members:
            info = member if isinstance(member, tarfile.TarInfo) else tarfile.TarInfo(member[0])
            content = b"" if isinstance(member, tarfile.TarInfo) else member[1]
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return sink.getvalue()


@dataclass
class Scanned:
    """A finished scan in one piece."""

    index: pa.Table
    images: list[bytes | None]
    slices: list[Slice]
    scan: ShardScan

    @property
    def reasons(self) -> list[str | None]:
        return self.index["index_reason"].to_pylist()

    @property
    def keys(self) -> list[str | None]:
        return self.index["key"].to_pylist()


def scan(container: Container, slice_bytes: int = 64 << 20, slice_rows: int = 4096) -> Scanned:
    """Scan and hold the result to what every scan promises."""
    pass_ = ShardScan(container, slice_bytes, slice_rows)
    slices = list(pass_)
    index = pa.concat_tables([piece.index for piece in slices] or [INDEX.empty_table()])
    images = [image.as_py() for piece in slices for image in piece.images]
    assert index.schema.equals(INDEX)
    assert all(piece.images.type == pa.large_binary() for piece in slices)
    assert len(images) == len(index) == pass_.samples
    borders = [0, *index["stop"].to_pylist()]
    assert index["start"].to_pylist() == borders[:-1]
    assert borders[-1] + pass_.trailer_bytes == pass_.size
    assert [image is None for image in images] == index["image_hash"].is_null().to_pylist()
    assert [image is None for image in images] == index["image_member"].is_null().to_pylist()
    firsts = [piece.first_row for piece in slices]
    assert firsts == [sum(len(piece.index) for piece in slices[:number]) for number in range(len(slices))]
    return Scanned(index, images, slices, pass_)


@pytest.fixture(scope="session")
def scan_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Scanned]:
    """Scan bytes as a shard of a given name; the scanned container is at `.scan.container`."""
    folder = tmp_path_factory.mktemp("shards")

    def scan_bytes(content: bytes, name: str = "shard.tar", **settings: int) -> Scanned:
        path = folder / name
        path.write_bytes(content)
        return scan(Container(str(path), "tar"), **settings)

    return scan_bytes


@pytest.fixture(scope="session")
def kit() -> SimpleNamespace:
    """The builders above."""
    return SimpleNamespace(png=png, sample=sample, tar_bytes=tar_bytes, scan=scan)

"""Limits hold in memory: what hostile files make a process take beyond what it had, each in a process of its own."""

import gzip
import io
import json
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from tests.hostile import images

ROOT = Path(__file__).resolve().parents[2]
PEAK = """
import json, re, sys
from pathlib import Path
sys.path.insert(0, {root!r})
{prepare}
def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
before = peak()
{work}
print(json.dumps([(peak() - before) >> 10, found]))
"""
pytestmark = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peaks are read from Linux's /proc")
STAGES = """
import pyarrow as pa
from schemas.columns import IMAGE
from stages.duplicates.perceptual_hash import PerceptualHash
from stages.quality.image_header import ImageHeader
from PIL import Image
Image.init()
scorers = [ImageHeader().open(), PerceptualHash().open()]
paths = sorted(Path({folder!r}).iterdir())
def reasons(path):
    rows = pa.record_batch([pa.array([path.read_bytes()], IMAGE.type)], pa.schema([IMAGE]))
    return [scorer(rows).column(-1)[0].as_py() for scorer in scorers]
"""
SCAN = """
from pipeline.shards import Container, ShardScan
"""


def peak(prepare: str, work: str) -> tuple[int, object]:
    """(MiB taken beyond what the imports took, what the work found)."""
    code = PEAK.format(root=str(ROOT), prepare=prepare, work=work)
    ran = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    mebibytes, found = json.loads(ran.stdout.splitlines()[-1])
    return mebibytes, found


def test_no_bomb_takes_more_than_a_large_photo(tmp_path: Path) -> None:
    bombs = images.bombs()
    for name, (content, _) in bombs.items():
        assert len(content) < 400_000
        (tmp_path / name).write_bytes(content)
    work = "found = {path.name: reasons(path) for path in paths}"
    mebibytes, found = peak(STAGES.format(folder=str(tmp_path)), work)
    assert found == {name: [reason or None] * 2 for name, (_, reason) in bombs.items()}
    assert mebibytes < 500


def packed(members: list[tuple[str, int]], path: Path, *, records: int = 0, times: int = 1) -> None:
    """A gzip of a tar, repeated, with members of one letter and global pax records before each."""
    with gzip.open(path, "wb", compresslevel=1) as stream:
        sink = io.BytesIO()
        with tarfile.open(fileobj=sink, mode="w") as archive:
            for number, (name, size) in enumerate(members):
                header = tarfile.TarInfo(name)
                header.size = size
                if records:
                    facts = {f"r{number}-{record}": "x" * 1000 for record in range(records)}
                    sink.write(tarfile.TarInfo.create_pax_global_header(facts))
                archive.addfile(header, io.BytesIO(b"x" * size))
        for _ in range(times):
            stream.write(sink.getvalue().rstrip(b"\0") if times == 1 else sink.getvalue()[: tarfile.BLOCKSIZE])


MEBI = 1 << 20
SUFFIXES = ("ico", "ppm", "tiff", "tif", "bmp", "gif", "jp2", "jxl", "heif", "heic", "avif", "webp", "png", "jpg")


@pytest.mark.parametrize(
    ("members", "options", "bound"),
    [
        pytest.param([(f"a.{suffix}", 30 * MEBI) for suffix in SUFFIXES], {}, 200, id="images of one sample"),
        pytest.param([(f"{number:05d}.txt", 12 * MEBI) for number in range(40)], {}, 600, id="captions"),
        pytest.param([(f"{number:05d}" + "n" * 500_000 + ".jpg", 1) for number in range(400)], {}, 100, id="names"),
        pytest.param([("a.jpg", 0)], {"times": 200_000}, 80, id="members of one sample"),
        pytest.param([(f"{number:05d}.jpg", 1) for number in range(200)], {"records": 900}, 100, id="pax records"),
    ],
)
def test_no_shard_takes_more_than_a_slice(
    members: list[tuple[str, int]], options: dict[str, int], bound: int, tmp_path: Path
) -> None:
    path = tmp_path / "shard.tar"
    packed(members, path, **options)
    work = f"""
scan = ShardScan(Container({str(path)!r}, "tar"), 64 << 20, 4096)
found = sum(len(piece.index) for piece in scan)
"""
    mebibytes, rows = peak(SCAN, work)
    assert rows == len({name.partition(".")[0] for name, _ in members})
    assert mebibytes < bound

"""Limits hold in memory: what hostile files make a process take beyond what it had, each in a process of its own."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.hostile import images

ROOT = Path(__file__).resolve().parents[2]
PEAK = """
import json, resource, sys
from pathlib import Path
sys.path.insert(0, {root!r})
{prepare}
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
{work}
print(json.dumps([(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) >> 10, found]))
"""
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


def packed(members: list[tuple[str, int]], tmp_path: Path, records: int = 0) -> Path:
    """A gzip of a tar with members of zeros, and pax records before each."""
    import gzip
    import tarfile

    path = tmp_path / "shard.tar"
    with gzip.open(path, "wb", compresslevel=1) as stream, tarfile.open(fileobj=stream, mode="w|") as archive:
        for number, (name, size) in enumerate(members):
            header = tarfile.TarInfo(name)
            header.size = size
            header.pax_headers = {f"r{number}-{record}": "x" * 1000 for record in range(records)}
            with open("/dev/zero", "rb") as zeros:
                archive.addfile(header, zeros)
    return path


@pytest.mark.parametrize("case", ["images", "captions", "names", "members", "records"])
def test_no_shard_takes_more_than_a_slice(case: str, tmp_path: Path) -> None:
    mebi = 1 << 20
    suffixes = ("ico", "ppm", "tiff", "tif", "bmp", "gif", "jp2", "jxl", "heif", "heic", "avif", "webp", "png", "jpg")
    members = {
        "images": [(f"a.{suffix}", 60 * mebi) for suffix in suffixes],
        "captions": [(f"{number:05d}.{suffix}", 12 * mebi) for number in range(60) for suffix in ("json", "cls")],
        "names": [(f"{number:05d}" + "n" * 500_000 + ".jpg", 1) for number in range(800)],
        "members": [(f"a.{number}", 0) for number in range(300_000)],
        "records": [(f"{number:05d}.jpg", 1) for number in range(500)],
    }[case]
    path = packed(members, tmp_path, records=900 if case == "records" else 0)
    work = f"""
scan = ShardScan(Container({str(path)!r}, "tar"), 64 << 20, 4096)
found = sum(len(piece.index) for piece in scan)
"""
    mebibytes, rows = peak(SCAN, work)
    assert rows == len({name.partition(".")[0] for name, _ in members})
    assert mebibytes < 400, case

"""A folder as img2dataset leaves it: tars that are read as they are, and what could not be fetched is told."""

import io
import json
import tarfile

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.shards import Container, containers, read_members
from pipeline.shards.img2dataset import note, statuses
from schemas.errors import RecipeError
from schemas.recipe import Source

STATUSES = ["success", "failed_to_download", "success", "failed_to_resize", "success", None]


@pytest.fixture
def output(tmp_path, kit):
    """Two shards of six URLs, half of them fetched."""
    for shard in range(2):
        rows = [row(shard, number, status) for number, status in enumerate(STATUSES)]
        fetched = [one for one in rows if one["status"] == "success"]
        with tarfile.open(tmp_path / f"{shard:05d}.tar", "w") as tar:
            for one in fetched:
                image = kit.png(int(one["key"]))
                facts = json.dumps(one, indent=4).encode()
                for suffix, content in (("jpg", image), ("txt", one["caption"].encode()), ("json", facts)):
                    info = tarfile.TarInfo(f"{one['key']}.{suffix}")
                    info.size = len(content)
                    tar.addfile(info, io.BytesIO(content))
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / f"{shard:05d}.parquet")
        (tmp_path / f"{shard:05d}_stats.json").write_text(json.dumps({"count": 6, "successes": 3}))
    return tmp_path


def row(shard, number, status):
    fine = status == "success"
    return {
        "caption": f"caption {number} é",
        "url": f"https://example.org/{shard}/{number}.jpg",
        "key": f"{shard:05d}{number:04d}",
        "status": status,
        "error_message": None if fine else "HTTP Error 404: Not Found",
        "width": 256 if fine else None,
        "exif": '{"Image Make": "x\\u0000y"}' if fine else None,
        "sha256": "0" * 64 if fine else None,
    }


def test_its_tars_are_read_as_they_are(kit, output):
    found = containers(Source(source="s", shards=f"{output}/*.tar"))
    scans = [kit.scan(one) for one in found]
    assert [one.reasons for one in scans] == [[None] * 3] * 2
    assert scans[1].keys == ["000010000", "000010002", "000010004"]
    facts = json.loads(dict(next(read_members(found[0], scans[0].index)))[".json"])
    assert facts == row(0, 0, "success")


def test_a_glob_that_takes_in_what_lies_beside_is_narrowed(output):
    for pattern in ("*", "0000*", "*.{tar,parquet}"):
        with pytest.raises(RecipeError, match=r"narrow the pattern, e\.g\. to `\*\.tar`"):
            containers(Source(source="s", shards=f"{output}/{pattern}"))
    with pytest.raises(RecipeError, match=r"found the folder .*e\.g\. `.*/\*\.tar`"):
        containers(Source(source="s", shards=str(output)))


def test_what_was_not_fetched_is_told(output):
    found = statuses(containers(Source(source="s", shards=f"{output}/*.tar")))
    assert found == {"success": 6, "failed_to_download": 2, "failed_to_resize": 2, "None": 2}
    assert note("web", found) == (
        "img2dataset: 6 of 12 URLs of source 'web' were not downloaded (2 None, 2 failed_to_download, "
        "2 failed_to_resize); the .parquet beside each tar lists them"
    )
    assert note("web", statuses(containers(Source(source="s", shards=f"{output}/00000.tar")))).startswith(
        "img2dataset: 3 of 6"
    )
    for path in output.iterdir():
        fsspec.filesystem("memory").pipe(f"/i2d/{path.name}", path.read_bytes())
    assert statuses([Container(f"memory://i2d/{shard:05d}.tar", "tar") for shard in range(2)]) == found


def test_other_tables_beside_a_tar_say_nothing(output):
    pq.write_table(pa.table({"key": ["a"], "status": [3]}), output / "00000.parquet")
    (output / "00001.parquet").write_bytes(b"no parquet")
    found = statuses(containers(Source(source="s", shards=f"{output}/*.tar")))
    assert not found and note("web", found) is None
    assert not statuses([Container(str(output / "a/b.tar"), "tar"), Container("x.parquet", "parquet")])

import errno
import io
import json
from dataclasses import asdict

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.shards import Container, containers, read_images, read_members, stamp, streams
from schemas.errors import RecipeError, ShardError
from schemas.recipe import Source


def test_the_ending_decides_the_format_and_the_bytes_the_settings(tmp_path):
    for name in ("a.tar", "b.tar.gz", "c.tgz", "d.tar.zst", "e.TZST"):
        (tmp_path / name).write_bytes(b"x")
    found = containers(Source(source="s", shards=str(tmp_path / "*")))
    assert [one.format for one in found] == ["tar", "tar.gz", "tar.gz", "tar.zst", "tar.zst"]
    assert [one.settings() for one in found] == [{}] * 5
    assert Container(**json.loads(json.dumps(asdict(found[0])))) == found[0]


def test_what_beside_the_bytes_decides_an_index():
    one, two = Container("/x/a.parquet", "parquet", "i", "c"), Container("/y/b.parquet", "parquet", "i", "c")
    assert one.settings() == two.settings() == {"format": "parquet", "image": "i", "caption": "c"}
    tables = [Container(f"/x/t.{end}", "folder", root="/x") for end in ("csv", "jsonl")]
    assert tables[0].settings() != tables[1].settings()


def test_other_files_are_refused(tmp_path):
    (tmp_path / "a.zip").write_bytes(b"x")
    with pytest.raises(RecipeError, match=r"a\.zip.*expected \.tar"):
        containers(Source(source="s", shards=str(tmp_path / "*")))


def test_stamps(tmp_path):
    path = tmp_path / "a.tar"
    path.write_bytes(b"12345")
    size, when = stamp(Container(str(path), "tar"))
    assert (size, when) == (5, str(path.stat().st_mtime_ns))
    for bad, reason in ((tmp_path / "none.tar", "missing_shard"), (tmp_path, "unreadable_shard")):
        with pytest.raises(ShardError) as refusal:
            stamp(Container(str(bad), "tar"))
        assert refusal.value.reason == reason
    with pytest.raises(ShardError) as gone:
        stamp(Container("memory://stamps/none.tar", "tar"))
    assert gone.value.reason == "missing_shard"


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:zst"])
def test_a_url_is_read_like_a_file(kit, tmp_path, mode):
    content = kit.tar_bytes([member for number in range(6) for member in kit.sample(number)], mode=mode)
    path = tmp_path / "a.tar"
    path.write_bytes(content)
    fsspec.filesystem("memory").pipe("/tars/a.tar", content)
    local, remote = Container(str(path), "tar"), Container("memory://tars/a.tar", "tar")
    here, there = kit.scan(local), kit.scan(remote)
    assert there.index.equals(here.index) and there.scan.digest == here.scan.digest
    assert read_images(remote, there.index).to_pylist() == here.images
    assert list(read_members(remote, there.index)) == list(read_members(local, here.index))
    with pytest.raises(ShardError) as missing:
        kit.scan(Container("memory://tars/none.tar", "tar"))
    assert missing.value.reason == "missing_shard"


class FailingDisk(io.FileIO):
    """Reads some bytes, then reports what a dying disk reports."""

    def readinto(self, buffer):
        if self.tell() > 3000:
            raise OSError(errno.EIO, "Input/output error")
        return super().readinto(memoryview(buffer)[:1000])

    def read(self, size=-1):
        if self.tell() > 3000:
            raise OSError(errno.EIO, "Input/output error")
        return super().read(size)


@pytest.mark.parametrize("form", ["tar", "parquet"])
def test_a_failing_disk_is_not_taken_for_damage(kit, tmp_path, monkeypatch, form):
    path = tmp_path / f"a.{form}"
    images = [kit.png(number, 40) for number in range(8)]
    if form == "tar":
        path.write_bytes(kit.tar_bytes([(f"{number}.png", image) for number, image in enumerate(images)]))
    else:
        pq.write_table(pa.table({"image": images, "caption": ["c"] * 8}), path, row_group_size=1)
    container = Container(str(path), form)
    index = kit.scan(container).index
    monkeypatch.setattr(streams, "open", lambda place, *args, **kwargs: FailingDisk(place), raising=False)
    with pytest.raises(ShardError) as scanned:
        kit.scan(container)
    assert scanned.value.reason == "read_failed"
    if form == "parquet":
        with pytest.raises(ShardError) as read:
            read_images(container, index)
        assert read.value.reason == "read_failed"

import json
import os
from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import xxhash

from pipeline.fingerprints import content_address
from pipeline.shards import containers, read_images, read_members, shard_digest, stamp
from pipeline.shards.rows import content_hash
from schemas.errors import RecipeError, ShardError
from schemas.recipe import Source


@pytest.fixture
def folder(tmp_path, kit):
    place = tmp_path / "photos"
    (place / "sub").mkdir(parents=True)
    for number in range(9):
        (place / f"sub/{number}.png").write_bytes(kit.png(number))
    write(place, [f"sub/{number}.png" for number in range(9)])
    return place


def write(place, paths, name="list.parquet", **columns):
    table = {"file": paths, "title": [f"title {number} é" for number in range(len(paths))], **columns}
    pq.write_table(pa.table(table), place / name, row_group_size=4)


def source(place, **settings):
    settings = {"parquet": f"{place}/*.parquet", "image": "file", "caption": "title", **settings}
    return Source(source="s", **settings)


def only(place, **settings):
    (container,) = containers(source(place, **settings))
    return container


def test_scan_and_second_read_agree(kit, folder):
    write(folder, [f"sub/{number}.png" for number in range(9)], price=[number / 4 for number in range(9)])
    container = only(folder)
    found = kit.scan(container, slice_rows=4)
    assert found.keys == [f"sub/{number}" for number in range(9)]
    assert found.reasons == [None] * 9
    assert found.images == [kit.png(number) for number in range(9)]
    assert found.scan.size == 9
    some = found.index.take(pa.array([7, 0, 5]))
    assert read_images(container, some).to_pylist() == [kit.png(number) for number in (7, 0, 5)]
    expected = [
        [
            (".png", kit.png(row)),
            (".txt", f"title {row} é".encode()),
            (".json", json.dumps({"price": row / 4}).encode()),
        ]
        for row in (7, 0, 5)
    ]
    assert list(read_members(container, some)) == expected
    for row, members in enumerate(read_members(container, found.index)):
        facts = [(suffix[1:], len(data), xxhash.xxh3_128_hexdigest(data)) for suffix, data in members]
        assert found.index["content_hash"][row].as_py() == content_hash(facts)
    assert shard_digest(container) == content_address(found.scan.digest, container.settings())


def test_the_images_may_lie_elsewhere(kit, folder, tmp_path):
    lists = tmp_path / "lists"
    lists.mkdir()
    os.rename(folder / "list.parquet", lists / "list.parquet")
    assert set(kit.scan(only(lists)).reasons) == {"missing_image"}
    for root in (str(folder), folder.as_uri()):
        assert only(lists, root=root).root == str(folder)
        assert kit.scan(only(lists, root=root)).reasons == [None] * 9


def test_nothing_outside_the_folder_is_read(kit, folder):
    secret = folder.parent / "secret.png"
    secret.write_bytes(kit.png(1))
    os.symlink(secret, folder / "link.png")
    os.symlink(folder.parent, folder / "up")
    os.mkfifo(folder / "pipe.png")
    names = ["../secret.png", str(secret), "link.png", "up/secret.png", "pipe.png", "no.png", "a\0b", "", None]
    write(folder, [*names, "sub/3.png"])
    found = kit.scan(only(folder))
    reasons = [*["unsafe_name"] * 4, "not_a_regular_file", "missing_image", "unsafe_name", *["missing_image"] * 2, None]
    assert found.reasons == reasons
    assert found.images == [None] * 9 + [kit.png(3)]
    assert read_images(only(folder), found.index).to_pylist() == found.images
    assert [len(members) for members in read_members(only(folder), found.index)] == [1] * 9 + [2]


def test_names_that_are_no_utf8_are_rows_too(kit, folder):
    names = pa.array([b"caf\xe9.png", b"sub/1.png"], pa.binary())
    text = pa.StringArray.from_buffers(2, *names.buffers()[1:])
    pq.write_table(pa.table({"file": text, "title": ["a", "b"]}), folder / "list.parquet")
    found = kit.scan(only(folder))
    assert (found.keys, found.reasons) == (["caf\\xe9", "sub/1"], ["unreadable_image", None])


def test_dictionaries_hold_paths_too(kit, folder):
    write(folder, pa.array(["sub/1.png", "sub/1.png", "sub/2.png"]).dictionary_encode())
    assert kit.scan(only(folder)).images == [kit.png(1), kit.png(1), kit.png(2)]
    assert stamp(only(folder))[0] > sum(len(kit.png(number)) for number in (1, 2))


def test_the_digest_follows_every_image_and_the_stamp_only_those_that_are_listed(kit, folder):
    write(folder, [f"sub/{number}.png" for number in range(3)], "second.parquet")
    first, second = containers(source(folder))
    digests, stamps = [kit.scan(one).scan.digest for one in (first, second)], [stamp(first), stamp(second)]
    assert stamps[1][0] == Path(second.path).stat().st_size + sum(len(kit.png(number)) for number in range(3))
    (folder / "unlisted.png").write_bytes(b"x")
    (folder / "sub/7.png").write_bytes(kit.png(70))
    assert stamp(first) != stamps[0] and stamp(second) == stamps[1]
    assert kit.scan(first).scan.digest != digests[0] and kit.scan(second).scan.digest == digests[1]
    (folder / "sub/2.png").unlink()
    assert stamp(second) != stamps[1]
    assert kit.scan(second).reasons == [None, None, "missing_image"]


def test_an_image_that_changed_or_went_is_named(kit, folder):
    container = only(folder)
    found = kit.scan(container)
    (folder / "sub/2.png").unlink()
    with pytest.raises(ShardError) as changed:
        read_images(container, found.index)
    assert changed.value.reason == "shard_changed"


def test_a_damaged_list_is_accounted_for(kit, folder):
    container = only(folder)
    meta = pq.read_metadata(container.path).row_group(1).column(0)
    content = bytearray(Path(container.path).read_bytes())
    content[meta.dictionary_page_offset : meta.dictionary_page_offset + 30] = bytes(30)
    Path(container.path).write_bytes(content)
    found = kit.scan(container)
    assert found.reasons == [None] * 4 + ["broken_row_group", None]
    assert stamp(container)
    Path(container.path).write_bytes(b"no parquet")
    assert stamp(container)[0] == 10


def test_a_url_is_read_like_a_folder(kit, folder):
    files = fsspec.filesystem("memory")
    for path in [folder / "list.parquet", *sorted((folder / "sub").iterdir())]:
        files.pipe(f"/paths/photos/{path.relative_to(folder)}", path.read_bytes())
    remote = only("memory://paths/photos")
    here, there = kit.scan(only(folder)), kit.scan(remote)
    assert there.index.equals(here.index) and there.scan.digest == here.scan.digest
    assert read_images(remote, there.index).to_pylist() == here.images
    before = stamp(remote)
    assert before == stamp(remote) and before[0] == stamp(only(folder))[0]
    files.pipe("/paths/photos/sub/4.png", b"shorter")
    assert stamp(remote) != before


def test_urls_below_the_root_are_paths(kit, folder, tmp_path):
    files, lists = fsspec.filesystem("memory"), tmp_path / "lists"
    lists.mkdir()
    for number in range(9):
        files.pipe(f"/bucket/photos/{number}.png", kit.png(number))
    write(lists, [f"memory://bucket/photos/{number}.png" for number in range(9)])
    with pytest.raises(RecipeError, match="img2dataset --url_list"):
        only(lists)
    with pytest.raises(RecipeError, match="img2dataset --url_list"):
        only(lists, root=str(tmp_path))
    container = only(lists, root="memory://bucket/photos")
    found = kit.scan(container)
    assert found.reasons == [None] * 9 and found.images == [kit.png(number) for number in range(9)]
    assert read_images(container, found.index).to_pylist() == found.images
    before = stamp(container)
    files.pipe("/bucket/photos/4.png", b"shorter")
    assert stamp(container) != before


def test_refusals(kit, folder, tmp_path):
    mixed = tmp_path / "mixed"
    mixed.mkdir()
    write(mixed, ["a.png"], "a.parquet")
    write(mixed, [kit.png(1)], "b.parquet")
    second = containers(source(mixed))[1]
    with pytest.raises(RecipeError, match="holds image bytes; expected paths"):
        kit.scan(second)
    with pytest.raises(RecipeError, match="holds image bytes; expected paths: remove `root`"):
        only(mixed, parquet=f"{mixed}/b.parquet", root=str(mixed))
    write(mixed, [3], "c.parquet")
    with pytest.raises(RecipeError, match="int64; expected image bytes or paths"):
        only(mixed, parquet=f"{mixed}/c.parquet")
    with pytest.raises(RecipeError, match=r"`root: .*nowhere` is no folder"):
        only(folder, root=str(tmp_path / "nowhere"))
    with pytest.raises(ValueError, match="`root` belongs to `parquet`"):
        Source(source="s", folder="x", table="t.csv", root="y")

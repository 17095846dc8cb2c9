import csv
import json
import os

import fsspec
import pyarrow as pa
import pytest
import xxhash

from pipeline.shards import containers, read_images, read_members, stamp
from pipeline.shards.rows import content_hash
from schemas.errors import RecipeError, ShardError
from schemas.recipe import Source


@pytest.fixture
def folder(tmp_path, kit):
    place = tmp_path / "photos"
    (place / "sub").mkdir(parents=True)
    for number in range(5):
        (place / f"sub/{number}.png").write_bytes(kit.png(number))
    lines = [{"image": f"sub/{number}.png", "caption": f"caption {number} é", "n": number} for number in range(5)]
    write_lines(place, lines)
    return place


def write_lines(place, lines):
    texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    (place / "captions.jsonl").write_text("\n".join(texts) + "\n")


def source(place, **settings):
    return Source(**{"source": "s", "folder": str(place), "table": "captions.jsonl", **settings})


def only(place, **settings):
    (container,) = containers(source(place, **settings))
    return container


def test_scan_and_second_read_agree(kit, folder):
    container = only(folder)
    found = kit.scan(container, slice_rows=2)
    assert found.keys == [f"sub/{number}" for number in range(5)]
    assert found.reasons == [None] * 5
    assert found.images == [kit.png(number) for number in range(5)]
    some = found.index.take(pa.array([4, 0, 2]))
    assert read_images(container, some).to_pylist() == [kit.png(number) for number in (4, 0, 2)]
    members = list(read_members(container, some))
    assert members[0] == [(".png", kit.png(4)), (".txt", "caption 4 é".encode()), (".json", b'{"n": 4}')]
    for row, parts in zip((4, 0, 2), members, strict=True):
        facts = [(suffix[1:], len(data), xxhash.xxh3_128_hexdigest(data)) for suffix, data in parts]
        assert found.index["content_hash"][row].as_py() == content_hash(facts)


def test_of_a_list_of_captions_the_first_counts(kit, folder):
    lists = [["one", "two"], [], [3]]
    write_lines(folder, [{"image": f"sub/{n}.png", "caption": captions} for n, captions in enumerate(lists)])
    found = kit.scan(only(folder))
    assert found.index["caption"].to_pylist() == ["one", None, None]
    assert found.reasons == [None, "missing_caption", "missing_caption"]
    members = [dict(parts) for parts in read_members(only(folder), found.index)]
    assert [json.loads(parts[".json"])["caption"] for parts in members] == lists


def test_csv_with_other_column_names(kit, folder):
    with open(folder / "t.csv", "w", newline="") as stream:
        rows = csv.writer(stream)
        rows.writerow(["file", "words"])
        rows.writerows(
            [["sub/1.png", 'a "quoted", line\nbreak'], ["sub/2.png", "two"], ["sub/3.png"], ["sub/4.png", "", "x"]]
        )
    with open(folder / "t.csv", "ab") as stream:
        stream.write(b"sub/0.png,\xff\xfe\r\n")
    container = only(folder, table="t.csv", image="file", caption="words")
    found = kit.scan(container)
    assert found.index["caption"].to_pylist()[:2] == ['a "quoted", line\nbreak', "two"]
    assert found.reasons == [None, None, "broken_table_line", "broken_table_line", "caption_not_utf8"]
    assert [len(members) for members in read_members(container, found.index)] == [2, 2, 0, 0, 2]


def test_the_table_may_lie_beside_the_folder(kit, folder):
    os.rename(folder / "captions.jsonl", folder.parent / "captions.jsonl")
    assert kit.scan(only(folder)).reasons == [None] * 5


def test_several_folders(kit, folder):
    second = folder.parent / "second"
    second.mkdir()
    (second / "a.png").write_bytes(kit.png(9))
    write_lines(second, [{"image": "a.png", "caption": "x"}])
    (folder.parent / "notes.txt").write_text("no folder")
    found = containers(source(folder.parent / "*"))
    assert [len(kit.scan(one).keys) for one in found] == [5, 1]


def test_nothing_outside_the_folder_is_read(kit, folder):
    secret = folder.parent / "secret.png"
    secret.write_bytes(kit.png(1))
    os.symlink(secret, folder / "link.png")
    os.symlink(folder.parent, folder / "up")
    os.symlink(folder / "sub/0.png", folder / "inside.png")
    os.mkfifo(folder / "pipe.png")
    names = [
        "../secret.png",
        str(secret),
        "link.png",
        "up/secret.png",
        "inside.png",
        "pipe.png",
        "sub",
        "no.png",
        "a\0b",
    ]
    write_lines(folder, [{"image": name, "caption": "x"} for name in names])
    found = kit.scan(only(folder))
    unsafe = ["unsafe_name"] * 4
    assert found.reasons == [*unsafe, None, "not_a_regular_file", "not_a_regular_file", "missing_image", "unsafe_name"]
    assert [image is None for image in found.images] == [True] * 4 + [False] + [True] * 4


def test_broken_lines_are_rows_too(kit, folder):
    good = {"image": "sub/0.png", "caption": "x"}
    write_lines(
        folder, [good, "{broken", "", "[1]", {"image": 3, "caption": "x"}, {"image": "sub/1.png", "caption": 4}, good]
    )
    found = kit.scan(only(folder))
    assert found.reasons == [None, *["broken_table_line"] * 2, "missing_image", "missing_caption", None]
    assert found.scan.size == 6


def test_lines_without_end_are_not_read_into_memory(kit, folder, monkeypatch):
    from pipeline.shards import folder_rows

    monkeypatch.setattr(folder_rows, "MOST_LINE_BYTES", 100)
    good = {"image": "sub/0.png", "caption": "x"}
    write_lines(folder, [good, "x" * 350, good, {"image": "sub/1.png", "caption": "y" * 100}, good])
    assert kit.scan(only(folder)).reasons == [None, "broken_table_line", None, "broken_table_line", None]


@pytest.mark.parametrize("depth", [98, 99, 600, 980, 100_000])
def test_what_is_nested_deeper_than_can_be_written_again_is_broken(kit, folder, depth):
    line = json.dumps({"image": "sub/0.png", "caption": "x", "n": 0}).replace("0}", "[" * depth + "]" * depth + "}")
    write_lines(folder, [line, {"image": "sub/1.png", "caption": "y"}])
    assert kit.scan(only(folder)).reasons == [None if depth < 100 else "broken_table_line", None]


def test_the_digest_follows_every_byte_and_the_stamp_every_file(kit, folder):
    container = only(folder)
    digest, when = kit.scan(container).scan.digest, stamp(container)
    assert (kit.scan(container).scan.digest, stamp(container)) == (digest, when)
    facts = os.stat(folder / "sub/0.png")
    (folder / "sub/0.png").write_bytes(kit.png(0)[::-1])
    os.utime(folder / "sub/0.png", ns=(facts.st_atime_ns, facts.st_mtime_ns - 10**9))  # older than before
    assert kit.scan(container).scan.digest != digest
    assert stamp(container)[0] == when[0] and stamp(container)[1] != when[1]


def test_refusals(kit, folder):
    with pytest.raises(RecipeError, match=r"no column 'picture'.*'caption'|no column 'picture'"):
        kit.scan(only(folder, image="picture"))
    with pytest.raises(RecipeError, match="looked for"):
        only(folder, table="none.jsonl")
    with pytest.raises(RecipeError, match="no table"):
        only(folder, table="captions.xlsx")
    with pytest.raises(RecipeError, match="is no folder"):
        only(folder / "captions.jsonl")
    container = only(folder)
    (folder / "captions.jsonl").write_text("")
    with pytest.raises(ShardError) as empty:
        kit.scan(container)
    assert empty.value.reason == "empty_shard"


def test_an_image_that_changed_is_named(kit, folder):
    container = only(folder)
    found = kit.scan(container)
    (folder / "sub/2.png").unlink()
    with pytest.raises(ShardError) as changed:
        read_images(container, found.index)
    assert changed.value.reason == "shard_changed"


def test_a_url_is_read_like_a_folder(kit, folder):
    files = fsspec.filesystem("memory")
    for path in [folder / "captions.jsonl", *sorted((folder / "sub").iterdir())]:
        files.pipe(f"/fold/photos/{path.relative_to(folder)}", path.read_bytes())
    remote = only("memory://fold/photos")
    here, there = kit.scan(only(folder)), kit.scan(remote)
    assert there.index.equals(here.index) and there.scan.digest == here.scan.digest
    assert read_images(remote, there.index).to_pylist() == here.images
    assert stamp(remote) == stamp(remote)

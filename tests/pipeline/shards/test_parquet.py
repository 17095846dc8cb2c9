import datetime
import decimal
import json
import math
import random
from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import xxhash
from blake3 import blake3
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.shards import Container, containers, read_images, read_members, stamp
from pipeline.shards.rows import content_hash
from schemas.errors import RecipeError, ShardError
from schemas.recipe import Source


def write(path, columns, rows=7):
    pq.write_table(pa.table(columns), path, row_group_size=rows)
    return Container(str(path), "parquet", "picture", "title")


@pytest.fixture
def images(kit):
    return [kit.png(number, 5 + number) for number in range(20)]


@pytest.fixture
def shard(tmp_path, images):
    titles = [f"title {number} é" for number in range(20)]
    columns = {"picture": images, "title": titles, "price": [number / 4 for number in range(20)]}
    return write(tmp_path / "a.parquet", columns)


def test_scan_and_second_read_agree(kit, shard, images):
    found = kit.scan(shard, slice_rows=6)
    assert [len(piece.index) for piece in found.slices] == [6, 6, 6, 2]
    assert found.keys == [f"{number:02d}" for number in range(20)]
    assert found.reasons == [None] * 20
    assert found.images == images
    assert found.scan.digest == blake3(Path(shard.path).read_bytes()).hexdigest()
    assert found.scan.size == 20
    rows = [19, 3, 4, 13]
    some = found.index.take(pa.array(rows))
    assert read_images(shard, some).to_pylist() == [images[row] for row in rows]
    expected = [
        [
            (".png", images[row]),
            (".txt", f"title {row} é".encode()),
            (".json", b'{"price": %s}' % str(row / 4).encode()),
        ]
        for row in rows
    ]
    assert list(read_members(shard, some)) == expected
    assert list(read_members(shard, found.index.slice(0, 0))) == []


def test_the_content_hash_is_that_of_the_exported_members(kit, shard):
    found = kit.scan(shard)
    for row, members in enumerate(read_members(shard, found.index)):
        facts = [(suffix[1:], len(data), xxhash.xxh3_128_hexdigest(data)) for suffix, data in members]
        assert found.index["content_hash"][row].as_py() == content_hash(facts)


def test_row_groups_and_slices_change_no_row(kit, tmp_path, images):
    columns = {"picture": images, "title": ["t"] * 20}
    one = kit.scan(write(tmp_path / "one.parquet", columns, 20))
    many = kit.scan(write(tmp_path / "many.parquet", columns, 3), slice_rows=2)
    assert one.index.equals(many.index)


def test_the_layout_of_hugging_face_datasets(kit, tmp_path, images):
    struct = [{"bytes": image, "path": f"{number}.png"} for number, image in enumerate(images)]
    struct[3] = {"bytes": None, "path": "elsewhere.png"}
    struct[4] = None
    container = write(tmp_path / "hf.parquet", {"picture": struct, "title": ["t"] * 20, "id": list(range(100, 120))})
    found = kit.scan(container)
    assert found.keys[:2] == ["100", "101"]
    assert found.images[:5] == [*images[:3], None, None]
    assert found.reasons[:6] == [None, None, None, "missing_image", "missing_image", None]
    assert read_images(container, found.index).to_pylist() == found.images
    members = list(read_members(container, found.index))
    assert json.loads(dict(members[0])[".json"]) == {"id": 100, "picture": {"path": "0.png"}}


def test_captions_missing_empty_and_broken(kit, tmp_path, images):
    titles = pa.array([b"fine", None, b" ", b"\xff\xfe"] * 5, pa.binary())
    for kind in (pa.binary(), pa.large_string()):
        column = (
            titles.cast(kind)
            if kind == pa.binary()
            else pa.LargeStringArray.from_buffers(
                20, *titles.cast(pa.large_binary()).buffers()[1:], titles.buffers()[0], titles.null_count
            )
        )
        found = kit.scan(write(tmp_path / "c.parquet", {"picture": images, "title": column, "copy": column}))
        assert found.reasons[:4] == [None, "missing_caption", "empty_caption", "caption_not_utf8"]


def test_dictionaries_and_every_kind_of_column(kit, tmp_path, images):
    columns = {
        "picture": images[:2],
        "title": pa.array(["one", "two"]).dictionary_encode(),
        "bytes": [b"\xff", None],
        "when": [datetime.datetime(2024, 5, 1, tzinfo=datetime.UTC), None],
        "day": [datetime.date(2024, 5, 1)] * 2,
        "money": [decimal.Decimal("1.50")] * 2,
        "nan": [math.nan, math.inf],
        "nested": [{"a": [1, 2], "b": "é"}, None],
    }
    container = write(tmp_path / "all.parquet", columns)
    found = kit.scan(container)
    assert found.reasons == [None, None]
    facts = json.loads(dict(next(read_members(container, found.index)))[".json"])
    assert facts == {
        "bytes": "/w==",
        "when": "2024-05-01T00:00:00+00:00",
        "day": "2024-05-01",
        "money": "1.50",
        "nan": None,
        "nested": {"a": [1, 2], "b": "é"},
    }


def test_a_damaged_row_group_is_one_row_and_the_others_are_read(kit, shard):
    meta = pq.read_metadata(shard.path).row_group(1).column(0)
    damaged = bytearray(Path(shard.path).read_bytes())
    start = meta.data_page_offset
    damaged[start : start + 40] = bytes(40)
    Path(shard.path).write_bytes(damaged)
    found = kit.scan(shard)
    assert found.reasons == [None] * 7 + ["broken_row_group"] + [None] * 6
    assert (found.index["start"][7].as_py(), found.index["stop"][7].as_py()) == (7, 14)
    assert len(list(read_members(shard, found.index))) == 14
    assert read_images(shard, found.index).to_pylist() == found.images


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_damaged_bytes_never_raise_anything_else(kit, shard, data):
    content = bytearray(Path(shard.path).read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        # The footer's own numbers are Arrow's to check; pages are where rot sets in.
        content[data.draw(st.integers(4, int(len(content) * 0.7)))] = data.draw(st.integers(0, 255))
    place = shard.path.replace("a.parquet", "damaged.parquet")
    Path(place).write_bytes(content)
    try:
        kit.scan(Container(place, "parquet", "picture", "title"))
    except ShardError as error:
        assert error.reason == "unreadable_shard"


def test_what_is_no_parquet(kit, tmp_path, shard):
    whole = Path(shard.path).read_bytes()
    contents = {"empty_shard": b"", "unreadable_shard": random.Random(1).randbytes(500)}
    for reason, content in [*contents.items(), ("unreadable_shard", whole[:-100])]:
        (tmp_path / "bad.parquet").write_bytes(content)
        with pytest.raises(ShardError) as refusal:
            kit.scan(Container(str(tmp_path / "bad.parquet"), "parquet", "picture", "title"))
        assert refusal.value.reason == reason


def test_wrong_columns_are_refused_with_the_nearest(kit, tmp_path, images, shard):
    with pytest.raises(RecipeError, match=r"no column 'pictures'.*did you mean 'picture'"):
        containers(Source(source="s", parquet=shard.path, image="pictures", caption="title"))
    with pytest.raises(RecipeError, match="no column 'caption'"):
        kit.scan(Container(shard.path, "parquet", "picture"))
    urls = write(tmp_path / "urls.parquet", {"picture": ["http://x/a.jpg"], "title": ["t"]})
    with pytest.raises(RecipeError, match="holds paths and the source's first file image bytes"):
        kit.scan(urls)
    twice = pa.table([images[:1], images[:1], ["t"]], ["picture", "picture", "title"])
    pq.write_table(twice, tmp_path / "twice.parquet")
    with pytest.raises(RecipeError, match="2 columns 'picture'"):
        kit.scan(Container(str(tmp_path / "twice.parquet"), "parquet", "picture", "title"))
    numbers = write(tmp_path / "numbers.parquet", {"picture": images[:1], "title": [3]})
    with pytest.raises(RecipeError, match="expected text"):
        kit.scan(numbers)


def test_a_shard_that_shrank_is_named(kit, tmp_path, shard, images):
    found = kit.scan(shard)
    write(tmp_path / "a.parquet", {"picture": images[:5], "title": ["t"] * 5})
    with pytest.raises(ShardError) as changed:
        read_images(shard, found.index)
    assert changed.value.reason == "shard_changed"


def test_a_url_is_read_like_a_file(kit, shard):
    fsspec.filesystem("memory").pipe("/pq/a.parquet", Path(shard.path).read_bytes())
    source = Source(source="s", parquet="memory://pq/*.parquet", image="picture", caption="title")
    (remote,) = containers(source)
    here, there = kit.scan(shard), kit.scan(remote)
    assert there.index.equals(here.index) and there.scan.digest == here.scan.digest
    assert read_images(remote, there.index).to_pylist() == here.images
    assert stamp(remote)[0] == stamp(shard)[0]

"""Datasets that `datasets` saved: read as that library reads them, whole, damaged and remote."""

import json
import random
from pathlib import Path

import fsspec
import pyarrow as pa
import pytest
import xxhash
from blake3 import blake3
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.fingerprints import content_address
from pipeline.shards import Container, containers, read_images, read_members, shard_digest, stamp
from pipeline.shards.rows import content_hash
from schemas.errors import RecipeError, ShardError
from schemas.recipe import Source

FEATURES = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def write(folder, tables, batch=4):
    """What `save_to_disk` writes, with several record batches a file."""
    folder.mkdir(parents=True, exist_ok=True)
    names = [f"data-{number:05d}-of-{len(tables):05d}.arrow" for number in range(len(tables))]
    for name, table in zip(names, tables, strict=True):
        with pa.ipc.new_stream(folder / name, table.schema) as writer:
            writer.write_table(table, max_chunksize=batch)
    (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": name} for name in names]}))
    (folder / "dataset_info.json").write_text("{}")


def table(images, captions, **columns):
    cells = [image if isinstance(image, dict) or image is None else {"bytes": image, "path": None} for image in images]
    return pa.table({"image": pa.array(cells, FEATURES), "caption": captions, **columns})


def only(folder, **settings):
    (container,) = containers(Source(source="s", huggingface=str(folder), **settings))
    return container


@pytest.fixture
def images(kit):
    return [kit.png(number, 4 + number % 9) for number in range(11)]


@pytest.fixture
def saved(tmp_path, images):
    cells = [{"bytes": image, "path": f"{number}.png"} for number, image in enumerate(images)]
    write(tmp_path / "saved", [table(cells, [f"caption {n} é" for n in range(11)], n=list(range(11)))])
    return tmp_path / "saved"


def test_scan_and_second_read_agree(kit, saved, images):
    container = only(saved)
    found = kit.scan(container, slice_rows=4)
    assert [len(piece.index) for piece in found.slices] == [4, 4, 3]
    assert found.keys == [f"{number:08d}" for number in range(11)]
    assert found.reasons == [None] * 11 and found.images == images
    assert found.index["caption"].to_pylist() == [f"caption {number} é" for number in range(11)]
    assert found.scan.digest == blake3(Path(container.path).read_bytes()).hexdigest()
    assert shard_digest(container) == content_address(found.scan.digest, container.settings())
    assert stamp(container) == (Path(container.path).stat().st_size, str(Path(container.path).stat().st_mtime_ns))
    rows = [10, 3, 4, 8]
    some = found.index.take(pa.array(rows))
    assert read_images(container, some).to_pylist() == [images[row] for row in rows]
    for row, members in zip(rows, read_members(container, some), strict=True):
        suffixes = [".png", ".txt", ".json"]
        assert [suffix for suffix, _ in members] == suffixes
        assert members[0][1] == images[row] and members[1][1] == f"caption {row} é".encode()
        assert json.loads(members[2][1]) == {"n": row, "image": {"path": f"{row}.png"}}
        facts = [(suffix[1:], len(data), xxhash.xxh3_128_hexdigest(data)) for suffix, data in members]
        assert found.index["content_hash"][row].as_py() == content_hash(facts)
    assert read_images(container, found.index.slice(0, 0)).to_pylist() == []
    assert list(read_members(container, found.index.slice(0, 0))) == []


def test_it_is_what_the_library_saves_and_reads(kit, tmp_path):
    datasets = pytest.importorskip("datasets")
    datasets.disable_progress_bars()
    (tmp_path / "loose.png").write_bytes(kit.png(99))
    cells = [{"bytes": kit.png(number), "path": f"{number}.png"} for number in range(20)] + [
        str(tmp_path / "loose.png")
    ]
    features = {"picture": datasets.Image(), "text": datasets.Value("string"), "id": datasets.Value("int64")}
    columns = {"picture": cells, "text": [f"caption {n} é" for n in range(21)], "id": list(range(100, 121))}
    whole = datasets.Dataset.from_dict(columns, datasets.Features(features))
    whole.filter(lambda row: row["id"] != 105).shuffle(seed=3).save_to_disk(tmp_path / "saved", num_shards=3)

    found = containers(Source(source="s", huggingface=str(tmp_path / "saved"), image="picture", caption="text"))
    scans = [kit.scan(one) for one in found]
    theirs = datasets.load_from_disk(tmp_path / "saved").cast_column("picture", datasets.Image(decode=False))
    assert len(found) == 3 and len(theirs) == 20
    assert [key for one in scans for key in one.keys] == [str(row["id"]) for row in theirs]
    assert [image for one in scans for image in one.images] == [row["picture"]["bytes"] for row in theirs]
    captions = [caption for one in scans for caption in one.index["caption"].to_pylist()]
    assert captions == [row["text"] for row in theirs]
    members = [parts for one in scans for parts in read_members(one.scan.container, one.index)]
    assert [dict(parts)[".png"] for parts in members] == [row["picture"]["bytes"] for row in theirs]

    datasets.DatasetDict({"train": whole, "test": whole.select([0])}).save_to_disk(tmp_path / "splits")
    with pytest.raises(RecipeError, match=r"splits train, test; name one, e\.g\. `huggingface: .*splits/train`"):
        only(tmp_path / "splits")
    assert len(kit.scan(only(tmp_path / "splits/test", image="picture", caption="text")).keys) == 1

    whole.to_parquet(tmp_path / "shard.parquet")
    (parquet,) = containers(Source(source="s", parquet=f"{tmp_path}/*.parquet", image="picture", caption="text"))
    scan = kit.scan(parquet)  # `to_parquet` only names the loose file
    assert scan.images == [*(kit.png(number) for number in range(20)), None]
    assert scan.reasons == [None] * 20 + ["missing_image"]


def test_images_that_lie_beside_the_dataset(kit, saved, tmp_path):
    (saved / "files").mkdir()
    for number in range(3):
        (saved / f"files/{number}.png").write_bytes(kit.png(number))
    (tmp_path / "outside.png").write_bytes(kit.png(7))
    paths = ["files/0.png", str(saved / "files/1.png"), "../outside.png", str(tmp_path / "outside.png"), "none.png", ""]
    cells = [{"bytes": None, "path": path} for path in paths] + [{"bytes": kit.png(9), "path": "files/2.png"}, None]
    write(saved, [table(cells, ["c"] * len(cells))])
    container = only(saved)
    found = kit.scan(container)
    assert found.reasons == [None, None, *["missing_image"] * 4, None, "missing_image"]
    assert found.images == [kit.png(0), kit.png(1), None, None, None, None, kit.png(9), None]
    assert read_images(container, found.index).to_pylist() == found.images
    assert [dict(parts).get(".png") for parts in read_members(container, found.index)] == found.images
    digest, before = found.scan.digest, stamp(container)
    assert digest != blake3(Path(container.path).read_bytes()).hexdigest()
    assert shard_digest(container) == content_address(digest, container.settings())
    (saved / "files/2.png").write_bytes(b"not listed: its bytes are inside")
    assert stamp(container) == before
    (saved / "files/1.png").write_bytes(kit.png(5))
    assert stamp(container) != before and kit.scan(container).scan.digest != digest
    with pytest.raises(ShardError) as changed:
        (saved / "files/1.png").unlink()
        read_images(container, found.index)
    assert changed.value.reason == "shard_changed"


def test_columns_of_bytes_paths_and_lists_of_captions(kit, saved, images):
    binary = pa.table({"image": images[:4], "caption": [["first", "second"], [], None, ["only"]]})
    write(saved, [binary])
    found = kit.scan(only(saved))
    assert found.images == images[:4]
    assert found.index["caption"].to_pylist() == ["first", None, None, "only"]
    assert found.reasons == [None, "missing_caption", "missing_caption", None]
    members = [dict(parts) for parts in read_members(only(saved), found.index)]
    assert [json.loads(parts[".json"])["caption"] for parts in members if ".json" in parts] == [
        ["first", "second"],
        [],
        ["only"],
    ]
    (saved / "a.png").write_bytes(images[0])
    write(saved, [pa.table({"image": ["a.png", "../b.png"], "caption": ["x", "y"]})])
    assert kit.scan(only(saved)).reasons == [None, "unsafe_name"]


def test_text_that_is_no_utf8_costs_its_row_only(kit, saved, images):
    raw = pa.array([b"fine", b"\xff\xfe", b" ", b"last"], pa.binary())
    text = pa.StringArray.from_buffers(4, *raw.buffers()[1:])
    several = pa.ListArray.from_arrays(pa.array([0, 1, 2, 3, 4], pa.int32()), text)
    for column in (text, several):
        write(saved, [table(images[:4], column, copy=column)])
        assert kit.scan(only(saved)).reasons == [None, "caption_not_utf8", "empty_caption", None]


def test_what_breaks_in_the_middle_of_a_batch_keeps_what_came_before(kit, saved):
    names = [b"fine.png"] * 150
    names[100] = b"\xff.png"
    raw = pa.array(names, pa.binary())
    paths = pa.StringArray.from_buffers(150, *raw.buffers()[1:])
    cells = pa.StructArray.from_arrays([pa.array([kit.png(n) for n in range(150)]), paths], ["bytes", "path"])
    write(saved, [pa.table({"image": cells, "caption": ["c"] * 150})], batch=150)
    found = kit.scan(only(saved))
    assert found.reasons == [None] * 64 + ["broken_row_group"]
    assert read_images(only(saved), found.index).to_pylist() == found.images
    assert len(list(read_members(only(saved), found.index))) == 65


def batches(path):
    """(offset, size) of each record batch's body in a stream."""
    content = Path(path).read_bytes()
    found = []
    with pa.memory_map(str(path)) as source:
        reader = pa.ipc.MessageReader.open_stream(source)
        for message in reader:
            if message.type == "record batch":
                body = message.body.to_pybytes()
                found.append((content.index(body), len(body)))
    return found


def test_cut_anywhere_all_batches_before_survive_and_the_tail_is_one_row(kit, saved, images):
    path = Path(only(saved).path)
    content, uncut = path.read_bytes(), kit.scan(only(saved)).index
    first, second, third = batches(path)
    cuts = [*range(first[0] - 90, len(content), 41), second[0], sum(first), sum(second), sum(third), len(content) - 1]
    container = only(saved)
    for cut in cuts:
        path.write_bytes(content[:cut])
        found = kit.scan(container)
        whole = [rows for rows, (start, size) in ((4, first), (8, second), (11, third)) if start + size <= cut]
        kept = max(whole, default=0)
        assert found.reasons == [None] * kept + ["truncated_shard"], cut
        assert found.index.slice(0, kept).equals(uncut.slice(0, kept))
        assert read_images(container, found.index).to_pylist() == found.images


def test_a_damaged_batch_is_one_row_and_the_others_are_read(kit, saved, images):
    container = only(saved)
    content = bytearray(Path(container.path).read_bytes())
    start, _ = batches(container.path)[1]
    content[start : start + 64] = b"\xff" * 64  # offsets of the images
    Path(container.path).write_bytes(content)
    found = kit.scan(container)
    assert found.reasons == [None] * 4 + ["broken_row_group"] + [None] * 3
    assert (found.index["start"][4].as_py(), found.index["stop"][4].as_py()) == (4, 8)
    assert found.images == [*images[:4], None, *images[8:]]
    assert read_images(container, found.index).to_pylist() == found.images
    assert len(list(read_members(container, found.index))) == 8


def test_lengths_that_cannot_be_end_no_process(kit, saved):
    container = only(saved)
    content = Path(container.path).read_bytes()
    inside = {place for start, size in batches(container.path) for place in range(start, start + size)}
    four = (4).to_bytes(8, "little")  # rows of a batch and lengths of its columns
    places = [at for at in range(len(content) - 8) if content[at : at + 8] == four and at not in inside]
    assert len(places) > 8
    for place in places:
        for value in (-(1 << 60), 1 << 62, 1 << 40, 5):
            wrong = value.to_bytes(8, "little", signed=True)
            Path(container.path).write_bytes(content[:place] + wrong + content[place + 8 :])
            stamp(container)
            try:
                found = kit.scan(container)
            except ShardError as error:
                assert error.reason == "unreadable_shard"
                continue
            assert set(found.reasons) <= {None, "broken_row_group", "broken_archive", "truncated_shard"}
            assert read_images(container, found.index).to_pylist() == found.images


def test_what_follows_the_end_is_a_row(kit, saved):
    container = only(saved)
    Path(container.path).write_bytes(Path(container.path).read_bytes() + b"more")
    assert kit.scan(container).reasons == [None] * 11 + ["broken_archive"]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damaged_bytes_never_raise_anything_else(kit, saved, data):
    container = only(saved)
    content = bytearray(Path(container.path).read_bytes())
    bodies = [place for start, size in batches(container.path) for place in range(start, start + size)]
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.sampled_from(bodies) if data.draw(st.booleans()) else st.integers(0, len(content) - 1))
        content[place] = data.draw(st.integers(0, 255))
    damaged = Path(container.path).with_name("damaged.arrow")
    damaged.write_bytes(content)
    place = Container(str(damaged), "arrow", root=str(saved))
    stamp(place)
    try:
        kit.scan(place)
    except ShardError as error:
        assert error.reason in ("unreadable_shard", "empty_shard")
    except RecipeError as error:  # a column's name or type was hit
        assert "column" in str(error)


def test_what_is_no_arrow_stream(kit, saved):
    container = only(saved)
    contents = {"empty_shard": b"", "unreadable_shard": random.Random(1).randbytes(500)}
    for reason, content in [*contents.items(), ("unreadable_shard", b"ARROW1\0\0" + bytes(90))]:
        Path(container.path).write_bytes(content)
        assert stamp(container)[0] == len(content)
        with pytest.raises(ShardError) as refusal:
            kit.scan(container)
        assert refusal.value.reason == reason
    Path(container.path).unlink()
    with pytest.raises(ShardError) as gone:
        stamp(only(saved))
    assert gone.value.reason == "missing_shard"


def test_a_shard_that_shrank_is_named(kit, saved, images):
    container = only(saved)
    found = kit.scan(container)
    write(saved, [table(images[:5], ["t"] * 5)])
    with pytest.raises(ShardError) as changed:
        read_images(container, found.index)
    assert changed.value.reason == "shard_changed"


def test_a_url_is_read_like_a_folder(kit, saved):
    files = fsspec.filesystem("memory")
    for path in saved.iterdir():
        files.pipe(f"/hf/saved/{path.name}", path.read_bytes())
    remote = only("memory://hf/saved")
    here, there = kit.scan(only(saved)), kit.scan(remote)
    assert there.index.equals(here.index) and there.scan.digest == here.scan.digest
    assert read_images(remote, there.index).to_pylist() == here.images
    assert stamp(remote)[0] == stamp(only(saved))[0]


def test_refusals(kit, saved, tmp_path, images):
    with pytest.raises(RecipeError, match=r"no column 'picture'"):
        only(saved, image="picture")
    with pytest.raises(RecipeError, match="expected image bytes or paths"):
        only(saved, image="n")
    with pytest.raises(RecipeError, match="caption column 'n' is int64"):
        only(saved, caption="n")
    with pytest.raises(RecipeError, match=r"does not exist.*load_dataset.*save_to_disk"):
        only(tmp_path / "laion/art")
    (tmp_path / "hub").mkdir()
    with pytest.raises(RecipeError, match=r"state\.json is missing\); save it with"):
        only(tmp_path / "hub")
    (tmp_path / "hub/train-00000.parquet").write_bytes(b"x")
    with pytest.raises(RecipeError, match=r"it holds Parquet: name `parquet: .*hub/\*\*/\*\.parquet`"):
        only(tmp_path / "hub")
    for state in ("{}", "[]", '{"_data_files": [{"filename": "../../etc/x"}]}', '{"_data_files": [3]}'):
        (saved / "state.json").write_text(state)
        with pytest.raises(RecipeError, match="names no data files"):
            only(saved)
    write(saved, [pa.table({"image": ["https://example.org/a.jpg"], "caption": ["x"]})])
    with pytest.raises(RecipeError, match=r"does not download.*to_parquet") as refusal:
        only(saved)
    assert "--input_format parquet" in str(refusal.value)

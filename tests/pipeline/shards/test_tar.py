import gzip
import io
import tarfile
from itertools import chain
from pathlib import Path

import pyarrow as pa
import pytest
import xxhash
import zstandard
from blake3 import blake3

from pipeline.shards import Container, ShardScan, read_images, read_members
from pipeline.shards.rows import content_hash
from schemas.errors import ShardError


@pytest.fixture
def members(kit):
    return [member for number in range(9) for member in kit.sample(number)]


def linked(name, kind=tarfile.SYMTYPE, target="/etc/passwd"):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def test_images_that_nobody_asked_for_are_counted_and_cut_no_slice_elsewhere(kit, tmp_path):
    path = tmp_path / "a.tar"
    path.write_bytes(
        kit.tar_bytes([(f"{n}.{s}", c) for n in range(9) for s, c in (("png", kit.png(n)), ("txt", b"x"))])
    )
    most = 3 * len(kit.png(0))
    whole, without = (list(ShardScan(Container(str(path), "tar"), most, 4, images=asked)) for asked in (True, False))
    assert [piece.index for piece in whole] == [piece.index for piece in without] and len(whole) > 2
    assert [piece.image_bytes for piece in whole] == [piece.image_bytes for piece in without]
    assert sum(piece.image_bytes for piece in whole) == sum(len(kit.png(n)) for n in range(9))
    assert all(piece.images.null_count == len(piece.index) for piece in without)


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("mode", ["w", "w:gz", "w:zst"])
def test_round_trip(kit, scan_of, members, form, mode):
    content = kit.tar_bytes(members, form, mode)
    found = scan_of(content, slice_rows=4)
    assert [len(piece.index) for piece in found.slices] == [4, 4, 1]
    assert found.keys == [f"{number:05d}" for number in range(9)]
    assert found.reasons == [None] * 9
    assert found.images == [kit.png(number, 4 + number % 9) for number in range(9)]
    assert found.index["caption"].to_pylist() == [f"caption {number} é" for number in range(9)]
    assert found.scan.digest == blake3(content).hexdigest()
    plain = {"w": bytes, "w:gz": gzip.decompress, "w:zst": zstandard.decompress}[mode](content)
    assert found.scan.size == len(plain)
    for (name, data), member in zip(members, chain(*found.index["members"].to_pylist()), strict=True):
        assert member == {"name": name, "offset": plain.index(data), "size": len(data)}


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:zst"])
def test_second_read_gives_the_same_bytes(kit, scan_of, members, mode):
    found = scan_of(kit.tar_bytes(members, mode=mode))
    container = found.scan.container
    assert read_images(container, found.index).to_pylist() == found.images
    rows = [7, 2, 3, 3]
    some = found.index.take(pa.array(rows))
    assert read_images(container, some).to_pylist() == [found.images[row] for row in rows]
    expected = [[(Path(name).suffix, data) for name, data in kit.sample(row)] for row in rows]
    assert list(read_members(container, some)) == expected
    assert read_images(container, found.index.slice(0, 0)).to_pylist() == []
    assert list(read_members(container, found.index.slice(0, 0))) == []


def test_slices_are_cut_by_bytes_or_rows_and_nothing_else(kit, scan_of, members):
    content = kit.tar_bytes(members)
    sizes = [len(image) for image in scan_of(content).images]
    found = scan_of(content, slice_bytes=sum(sizes[:3]) + 140)  # 44 bytes of key, caption and names a row
    assert len(found.slices[0].index) == 4
    assert scan_of(content, slice_bytes=0).slices[3].first_row == 3
    assert scan_of(content, slice_bytes=1, slice_rows=1).index.equals(scan_of(content).index)


def test_hashes_follow_content_not_order(kit, scan_of):
    one, two = kit.sample(1), kit.sample(2)
    ahead, turned = scan_of(kit.tar_bytes(one + two)), scan_of(kit.tar_bytes(two[::-1] + one[::-1]))
    assert ahead.index["content_hash"].to_pylist() == turned.index["content_hash"].to_pylist()[::-1]
    assert ahead.index["image_hash"][0].as_py() == xxhash.xxh3_128_hexdigest(one[0][1])
    facts = [(Path(name).suffix[1:], len(data), xxhash.xxh3_128_hexdigest(data)) for name, data in one]
    assert ahead.index["content_hash"][0].as_py() == content_hash(facts)
    changed = scan_of(kit.tar_bytes([one[0], one[1], ("00001.json", b'{"n": 2}')]))
    assert changed.index["content_hash"][0] != ahead.index["content_hash"][0]
    assert content_hash([("a", 1, "xy"), ("b", 1, "z")]) != content_hash([("a", 1, "x"), ("yb", 1, "z")])


IMAGE = ("a.jpg", b"\xff\xd8\xffimage")
TEXT = ("a.txt", b"words")


@pytest.mark.parametrize(
    ("members", "expected"),
    [
        ([TEXT], [("a", "missing_image")]),
        ([IMAGE], [("a", "missing_caption")]),
        ([IMAGE, ("a.txt", b" \n")], [("a", "empty_caption")]),
        ([IMAGE, ("a.txt", b"\xff\xfea\0")], [("a", "caption_not_utf8")]),
        ([IMAGE, ("a.txt", b"a\0b")], [("a", "caption_not_text")]),
        ([IMAGE, TEXT, ("a.JPG", b"other")], [("a", "duplicate_member")]),
        (
            [IMAGE, TEXT, ("b.png", b"x"), ("b.txt", b"y"), IMAGE, TEXT],
            [("a", None), ("b", None), ("a", "duplicate_key")],
        ),
        ([IMAGE, linked("a.txt")], [("a", "not_a_regular_file")]),
        ([IMAGE, TEXT, linked("l.jpg", tarfile.LNKTYPE, "a.jpg")], [("a", None), ("l", "not_a_regular_file")]),
        ([linked("d.jpg", tarfile.CHRTYPE), IMAGE, TEXT], [("d", "not_a_regular_file"), ("a", None)]),
        ([("../a.jpg", b"i"), ("../a.txt", b"t")], [("../a", "unsafe_name")]),
        ([("/etc/a.jpg", b"i"), ("/etc/a.txt", b"t")], [("/etc/a", "unsafe_name")]),
        ([("README", b"hello"), IMAGE, TEXT], [("README", "not_a_sample"), ("a", None)]),
        ([("x/.b.jpg", b"hello"), IMAGE, TEXT], [("x/.b.jpg", "not_a_sample"), ("a", None)]),
        ([("x.y/a.seg.png", b"m"), ("x.y/a.jpg", b"i"), ("x.y/a.txt", b"t")], [("x.y/a", None)]),
        ([("n" * 300 + ".jpg", b"i"), ("n" * 300 + ".txt", b"t")], [("n" * 300, None)]),
    ],
)
@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_reasons(kit, scan_of, members, expected, form):
    found = scan_of(kit.tar_bytes(members, form))
    assert list(zip(found.keys, found.reasons, strict=True)) == expected


@pytest.mark.parametrize(
    ("document", "caption", "reason"),
    [
        (b'{"caption": "from json"}', "from json", None),
        (b'{"text": "laion"}', "laion", None),
        (b'{"caption": 3, "text": "laion"}', "laion", None),
        (b'{"caption": "\\ud800"}', None, "caption_not_utf8"),
        (b'{"caption": ""}', "", "empty_caption"),
        (b"[" * 100_000, None, "broken_json"),
        (b"not json", None, "broken_json"),
        (b"", None, "broken_json"),
        ('{"caption": "wide"}'.encode("utf-16"), "wide", None),
        (b'{"caption": "a\\u0000b"}', None, "caption_not_text"),
        (b'["caption"]', None, "missing_caption"),
    ],
)
def test_a_caption_may_stand_in_the_json(kit, scan_of, document, caption, reason):
    found = scan_of(kit.tar_bytes([IMAGE, ("a.json", document)]))
    assert (found.index["caption"][0].as_py(), found.reasons) == (caption, [reason])
    both = scan_of(kit.tar_bytes([IMAGE, ("a.json", document), TEXT]))
    broken = reason if reason == "broken_json" else None
    assert (both.index["caption"][0].as_py(), both.reasons) == ("words", [broken])


def test_captions_stand_as_they_are_but_for_the_byte_order_mark(kit, scan_of):
    for text in ("nan", "\u202eright", "<script>\n", "x" * (1 << 20)):
        found = scan_of(kit.tar_bytes([IMAGE, ("a.txt", b"\xef\xbb\xbf" + text.encode())]))
        assert (found.index["caption"].to_pylist(), found.reasons) == ([text], [None])


def test_the_preferred_image_wins_whatever_the_order(kit, scan_of):
    several = [("a.png", b"png"), TEXT, ("a.jpg", b"jpg")]
    assert scan_of(kit.tar_bytes(several)).images == scan_of(kit.tar_bytes(several[::-1])).images == [b"jpg"]


def test_names_that_are_no_utf8_stay_distinct(kit, scan_of):
    names = [b"caf\xe9".decode(errors="surrogateescape"), b"caf\xe8".decode(errors="surrogateescape")]
    found = scan_of(
        kit.tar_bytes([(name + end, b"x") for name in names for end in (".jpg", ".txt")], tarfile.GNU_FORMAT)
    )
    assert found.keys == ["caf\\xe9", "caf\\xe8"]
    assert found.reasons == [None, None]


def test_directories_and_globals_belong_to_the_next_row(kit, scan_of):
    folder = tarfile.TarInfo("dir")
    folder.type = tarfile.DIRTYPE
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w", pax_headers={"comment": "global"}) as tar:
        for info, data in [(folder, b""), (tarfile.TarInfo("dir/a.jpg"), b"i"), (tarfile.TarInfo("dir/a.txt"), b"t")]:
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
        tar.addfile(folder)
    found = scan_of(sink.getvalue())
    assert (found.keys, found.reasons) == (["dir/a"], [None])
    assert found.index["start"][0].as_py() == 0


def test_sparse_members_are_quarantined_and_what_follows_is_read(kit, scan_of):
    info = tarfile.TarInfo("s.jpg")
    info.type = tarfile.GNUTYPE_SPARSE
    block = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    block[482] = 1  # the map goes on in another block
    block[148:156] = b"%06o\0 " % sum(block[:148] + b" " * 8 + block[156:])
    found = scan_of(bytes(block) + b"\x01" + bytes(511) + kit.tar_bytes([IMAGE, TEXT]))
    assert list(zip(found.keys, found.reasons, strict=True)) == [("s", "not_a_regular_file"), ("a", None)]


def test_concatenated_tars_are_read_to_the_end(kit, scan_of):
    first, second = kit.sample(1) + kit.sample(2), kit.sample(3)
    for mode in ("w", "w:gz", "w:zst"):
        found = scan_of(kit.tar_bytes(first, mode=mode) + kit.tar_bytes(second, mode=mode))
        assert (found.keys, found.reasons) == (["00001", "00002", "00003"], [None] * 3)
        assert read_images(found.scan.container, found.index).to_pylist() == found.images


@pytest.mark.parametrize("members", [[], ["folder"]])
def test_a_tar_without_a_sample_is_an_empty_shard(kit, scan_of, members):
    folder = tarfile.TarInfo("folder")
    folder.type = tarfile.DIRTYPE
    with pytest.raises(ShardError) as refusal:
        scan_of(kit.tar_bytes([folder] if members else []))
    assert refusal.value.reason == "empty_shard"


def test_large_members_are_read_in_pieces_and_oversized_ones_not_held(kit, scan_of, monkeypatch):
    from pipeline.shards import tar_entries

    monkeypatch.setattr(tar_entries, "CHUNK_BYTES", 1000)
    monkeypatch.setattr(tar_entries, "MOST_HELD_BYTES", 5000)
    content = kit.tar_bytes([("a.jpg", b"x" * 4001), TEXT, ("b.jpg", b"y" * 5001), ("b.txt", b"words")])
    found = scan_of(content)
    assert found.reasons == [None, "member_too_large"]
    assert found.images == [b"x" * 4001, None]
    monkeypatch.undo()
    assert scan_of(content).index["content_hash"].equals(found.index["content_hash"])


def test_counts_agree_with_webdataset(kit, scan_of, tmp_path):
    webdataset = pytest.importorskip("webdataset")
    path = tmp_path / "written.tar"
    with webdataset.TarWriter(str(path)) as writer:
        for number in range(20):
            writer.write({"__key__": f"k{number}", "jpg": kit.png(number), "txt": f"c{number}", "json": {"n": number}})
    found = kit.scan(Container(str(path), "tar"))
    theirs = list(webdataset.WebDataset(str(path), shardshuffle=False, empty_check=False))
    assert found.keys == [one["__key__"] for one in theirs]
    assert found.images == [one["jpg"] for one in theirs]
    assert [dict(one) for one in read_members(found.scan.container, found.index)] == [
        {f".{suffix}": one[suffix] for suffix in ("jpg", "txt", "json")} for one in theirs
    ]


@pytest.mark.parametrize(
    "content",
    [bytes(range(256)) * 8, b"short", b"\x1f\x8bnot gzip at all", b"\x28\xb5\x2f\xfdno zstd", b"PK\x03\x04" * 200],
)
def test_what_is_no_tar_is_unreadable(scan_of, content):
    with pytest.raises(ShardError) as refusal:
        scan_of(content)
    assert refusal.value.reason == "unreadable_shard"


def test_empty_missing_directory_and_device(kit, scan_of, tmp_path):
    with pytest.raises(ShardError) as empty:
        scan_of(b"")
    with pytest.raises(ShardError) as missing:
        kit.scan(Container(str(tmp_path / "none.tar"), "tar"))
    with pytest.raises(ShardError) as folder:
        kit.scan(Container(str(tmp_path), "tar"))
    with pytest.raises(ShardError) as device:
        kit.scan(Container("/dev/zero", "tar"))
    reasons = [one.value.reason for one in (empty, missing, folder, device)]
    assert reasons == ["empty_shard", "missing_shard", "unreadable_shard", "unreadable_shard"]


def test_a_shard_that_shrank_is_named(kit, scan_of, members):
    found = scan_of(kit.tar_bytes(members))
    Path(found.scan.container.path).write_bytes(kit.tar_bytes(members[:6]))
    for read in (read_images, lambda *args: list(read_members(*args))):
        with pytest.raises(ShardError) as changed:
            read(found.scan.container, found.index)
        assert changed.value.reason == "shard_changed"

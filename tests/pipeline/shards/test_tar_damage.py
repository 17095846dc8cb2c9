import gzip
import io
import random
import tarfile

import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from schemas.errors import ShardError

KNOWN_REASONS = {
    *(None, "missing_image", "missing_caption", "empty_caption", "caption_not_utf8", "duplicate_member"),
    *(
        "caption_not_text",
        "broken_json",
        "too_many_members",
        "duplicate_key",
        "not_a_regular_file",
        "not_a_sample",
        "unsafe_name",
        "member_too_large",
    ),
    *("truncated_shard", "broken_archive"),
}
SHARED_FIXTURES = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


@pytest.fixture(scope="module")
def content(kit):
    return kit.tar_bytes([member for number in range(6) for member in kit.sample(number)])


def listed(content: bytes) -> list[tarfile.TarInfo]:
    """The members, by the standard library."""
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        return tar.getmembers()


def whole_before(content: bytes, cut: int) -> list[str]:
    """Keys of samples all of whose data ends at or before the cut, by the standard library."""
    ends: dict[str, int] = {}
    for member in listed(content):
        key = member.name.partition(".")[0]
        ends[key] = max(ends.get(key, 0), member.offset_data + member.size)
    return [key for key, end in ends.items() if end <= cut]


def test_cut_anywhere_all_whole_samples_survive_and_the_tail_is_one_row(content, scan_of):
    members = listed(content)
    borders = {
        edge + step for one in members for edge in (one.offset, one.offset_data + one.size) for step in (-1, 0, 1)
    }
    cuts = sorted({cut for cut in [*borders, *range(600, len(content), 97)] if 512 <= cut < members[-1].offset_data})
    text_ends = members[1].offset_data + members[1].size
    for cut in cuts:
        found = scan_of(content[:cut])
        kept = [key for key, reason in zip(found.keys, found.reasons, strict=True) if reason is None]
        # The first sample has none before it to be compared with: cut between its members, it passes for whole.
        alone = ["00000"] if text_ends <= cut <= members[2].offset + len("00000") else []
        assert kept == whole_before(content, cut) + alone, cut
        assert [reason for reason in found.reasons if reason] == ["truncated_shard"] * (len(found.keys) - len(kept)), (
            cut
        )
        assert len(found.keys) - len(kept) <= 1
        # A tail's key is the sample it was cut from, where its name is left.
        tail = [key for key, reason in zip(found.keys, found.reasons, strict=True) if reason]
        assert tail in ([], [None], [f"{len(kept):05d}"]), cut
        assert found.scan.size == cut


def test_no_end_marker_is_no_loss(content, scan_of):
    stop = max(one.offset_data + one.size for one in listed(content))
    for cut in (stop, stop + 1, stop + -stop % 512, stop + -stop % 512 + 512, stop + -stop % 512 + 700):
        assert scan_of(content[:cut]).reasons == [None] * 6


def test_a_compressed_tar_cut_anywhere_keeps_what_inflates(content, scan_of):
    packed = gzip.compress(content, mtime=0)
    uncut = scan_of(packed)
    for cut in [*range(40, len(packed) - 8, 53), len(packed) - 3]:
        try:
            found = scan_of(packed[:cut])
        except ShardError as error:
            assert cut < 600 and error.reason == "unreadable_shard"
            continue
        whole = found.reasons.index("truncated_shard")
        assert whole == len(found.reasons) - 1
        alone = whole == 1 and cut < 400  # see above
        assert alone or found.index.slice(0, whole).equals(uncut.index.slice(0, whole))
    assert whole == 6  # the last cut only takes the checksum


def test_a_wrong_checksum_of_a_compressed_tar_costs_only_its_end(kit, scan_of):
    members = [
        member for number in range(40) for member in ((f"{number}.png", kit.png(number, 60)), (f"{number}.txt", b"c"))
    ]
    packed = bytearray(gzip.compress(kit.tar_bytes(members), mtime=0))
    packed[-6] ^= 1
    found = scan_of(bytes(packed))
    assert found.reasons[-1] == "broken_archive"
    assert found.reasons[:-1] == [None] * (len(found.reasons) - 1) and len(found.reasons) > 30


@pytest.mark.parametrize("header", ["image", "json"])
def test_a_damaged_header_costs_its_sample_and_what_follows_in_one_row(content, scan_of, header):
    members = listed(content)
    one = members[6 if header == "image" else 8]
    damaged = bytearray(content)
    damaged[one.offset + 150] ^= 4
    found = scan_of(bytes(damaged))
    assert found.reasons == [None, None, "broken_archive"]
    assert found.keys[2] == (None if header == "image" else "00002")


def test_garbage_after_the_end_marker_is_a_row(content, scan_of):
    found = scan_of(content + random.Random(0).randbytes(3000))
    assert found.reasons == [None] * 6 + ["broken_archive"]
    assert found.index["stop"][6].as_py() - found.index["start"][6].as_py() >= 3000


def test_a_size_that_lies_allocates_nothing(scan_of):
    info = tarfile.TarInfo("a.jpg")
    for size in (1 << 33, 1 << 60):
        info.size = size
        found = scan_of(info.tobuf(tarfile.GNU_FORMAT) + b"x" * 1000)
        assert (found.keys, found.reasons, found.images) == (["a"], ["truncated_shard"], [None])
    long = tarfile.TarInfo("././@LongLink")
    long.type, long.size = tarfile.GNUTYPE_LONGNAME, 1 << 40
    assert scan_of(long.tobuf(tarfile.GNU_FORMAT) + b"x" * 1000).reasons == ["broken_archive"]


def _survives(scan_of, content: bytes) -> None:
    try:
        found = scan_of(content)
    except ShardError as error:
        assert error.reason in ("unreadable_shard", "empty_shard")
        return
    assert set(found.reasons) <= KNOWN_REASONS


@SHARED_FIXTURES
@given(data=st.data())
def test_damaged_bytes_never_raise_and_always_add_up(content, scan_of, data):
    damaged = bytearray(content)
    headers = [one.offset for one in listed(content)]
    for _ in range(data.draw(st.integers(1, 4))):
        if data.draw(st.booleans()):
            place = data.draw(st.sampled_from(headers)) + data.draw(st.integers(0, 511))
        else:
            place = data.draw(st.integers(0, len(content) - 1))
        damaged[place] = data.draw(st.integers(0, 255))
    start = data.draw(st.integers(0, len(content)))
    if data.draw(st.booleans()):
        del damaged[start : start + data.draw(st.integers(1, 2000))]
    _survives(scan_of, bytes(damaged))


@pytest.mark.parametrize("zstd", [False, True])
@SHARED_FIXTURES
@given(data=st.data())
def test_damaged_compression_never_raises_and_always_adds_up(content, scan_of, zstd, data):
    checked = zstandard.ZstdCompressor(write_checksum=True)
    damaged = bytearray(checked.compress(content) if zstd else gzip.compress(content, mtime=0))
    for _ in range(data.draw(st.integers(1, 3))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    _survives(scan_of, bytes(damaged))


@SHARED_FIXTURES
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["a", "b", "../a", "c/d", "", "x.y/e", "."]),
            st.sampled_from([".jpg", ".txt", ".json", ".JPG", "", ".", ".cls.txt"]),
            st.sampled_from([tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.FIFOTYPE, b"V", b"D"]),
            st.binary(max_size=30),
        ),
        max_size=12,
    )
)
def test_odd_members_are_all_accounted_for(kit, scan_of, members):
    infos = []
    for stem, suffix, kind, _ in members:
        info = tarfile.TarInfo(stem + suffix)
        info.type = kind
        infos.append(info)
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for info, (*_, data) in zip(infos, members, strict=True):
            info.size = len(data) if info.type in (tarfile.REGTYPE, b"V", b"D") else 0
            tar.addfile(info, io.BytesIO(data))
    if all(info.type == tarfile.DIRTYPE or info.name.endswith("/") for info in infos):
        with pytest.raises(ShardError, match="no sample"):
            scan_of(sink.getvalue())
        return
    found = scan_of(sink.getvalue())
    assert set(found.reasons) <= KNOWN_REASONS
    regular = sum(info.type == tarfile.REGTYPE and not (info.name.endswith("/")) for info in infos)
    assert sum(len(one) for one in found.index["members"].to_pylist()) == regular

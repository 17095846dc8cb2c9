import gzip
from itertools import accumulate, pairwise

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.shards import ranges as ranges_module
from pipeline.shards.ranges import MOST_FETCHED_BYTES, Local, _picked, coalesced, open_ranges
from pipeline.shards.slices import image_array
from schemas.errors import ShardError

RANGES = st.lists(st.tuples(st.integers(0, 900), st.integers(0, 100)), max_size=30)


@given(RANGES, st.integers(0, 200))
def test_fewer_reads_find_the_same_bytes(ranges, near):
    content = bytes(range(250)) * 4
    reads = coalesced(ranges, near)
    chunks = [content[start : start + size] for start, size in reads]
    assert _picked(ranges, reads, chunks) == [content[start : start + size] for start, size in ranges]
    assert reads == sorted(reads)
    assert all(later[0] - sum(earlier) > near for earlier, later in pairwise(reads))


def test_one_read_is_bounded_unless_one_range_is_larger():
    step = MOST_FETCHED_BYTES // 3
    reads = coalesced([(number * step, step) for number in range(10)] + [(10 * step, 2 * MOST_FETCHED_BYTES)], 0)
    assert [size for _, size in reads] == [3 * step, 3 * step, 3 * step, step, 2 * MOST_FETCHED_BYTES]


def test_local_reads(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(bytes(range(256)) * 1000)
    with open(path, "rb") as stream:
        ranges = Local(stream.fileno(), str(path))
        assert ranges.fetch([(256, 4), (0, 2), (255_999, 100), (300_000, 5)]) == [
            bytes([0, 1, 2, 3]),
            b"\0\1",
            b"\xff",
            b"",
        ]
        assert ranges.fetch([]) == []


@given(RANGES, st.sampled_from([2, 3, 1024]), st.integers(0, 40))
def test_filled_places_hold_what_was_asked_for(tmp_path_factory, ranges, pieces, near):
    content = bytes(range(250)) * 4
    path = tmp_path_factory.getbasetemp() / "ranges.tar"
    path.write_bytes(content)
    whole = memoryview(bytearray(sum(size for _, size in ranges)))
    stops = list(accumulate((size for _, size in ranges), initial=0))
    targets = [(offset, whole[start:stop]) for (offset, _), (start, stop) in zip(ranges, pairwise(stops), strict=True)]
    with pytest.MonkeyPatch.context() as patch, open_ranges(str(path)) as file:
        patch.setattr(ranges_module, "MOST_PIECES", pieces)
        patch.setattr(ranges_module, "ASIDE", memoryview(bytearray(near)))
        file.fill(targets)
    assert whole == b"".join(content[offset : offset + size] for offset, size in ranges)


def test_a_compressed_tar_fills_places_as_well(tmp_path):
    (tmp_path / "t.tar.gz").write_bytes(gzip.compress(bytes(range(200))))
    late, early = memoryview(bytearray(3)), memoryview(bytearray(5))
    with open_ranges(str(tmp_path / "t.tar.gz")) as file:
        file.fill([(100, late), (10, early)])
    assert (bytes(early), bytes(late)) == (bytes(range(10, 15)), bytes([100, 101, 102]))


@pytest.mark.parametrize("name", ["t.tar", "t.tar.gz"])
def test_a_file_that_ends_early_has_changed(tmp_path, name):
    content = bytes(range(200))
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith("gz") else content)
    with open_ranges(str(tmp_path / name)) as file, pytest.raises(ShardError, match="not what it was") as found:
        file.fill([(10, memoryview(bytearray(5))), (198, memoryview(bytearray(3)))])
    assert found.value.reason == "shard_changed"


@given(st.lists(st.none() | st.binary(max_size=20), max_size=40))
def test_image_arrays_are_what_arrow_would_build(images):
    array = image_array(images)
    array.validate(full=True)
    assert array.equals(pa.array(images, pa.large_binary()))
    assert array.null_count == images.count(None)

from itertools import pairwise

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from pipeline.shards.ranges import MOST_FETCHED_BYTES, Local, _picked, coalesced
from pipeline.shards.rows import image_array

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


@given(st.lists(st.none() | st.binary(max_size=20), max_size=40))
def test_image_arrays_are_what_arrow_would_build(images):
    array = image_array(images)
    array.validate(full=True)
    assert array.equals(pa.array(images, pa.large_binary()))
    assert array.null_count == images.count(None)

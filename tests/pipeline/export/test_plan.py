"""The plan: a row group per output shard with the ranges of its samples, read in windows of bounded size."""

import io
import tarfile
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from pipeline.cluster import Cluster
from pipeline.export import planned
from pipeline.export.direct import Room
from pipeline.export.draws import Draws
from pipeline.export.plan import PLAN, make_export_plan, ordered, read_layout, suffixes_of
from pipeline.export.planned import Planned, read_planned
from pipeline.shards.rows import content_hash, split_name
from schemas.columns import COLUMNS
from schemas.tables import MEMBER

NAMES = "{folder}{number:05d}.tar"


def test_order_and_names(draws: Draws) -> None:
    plan = ordered(draws, NAMES)
    assert len(plan) == 48 + 2 * 16
    assert plan["exported_key"].n_unique() == len(plan)
    assert plan.group_by("exported_shard", maintain_order=True).len().rows() == [
        (f"{number:05d}.tar", 20) for number in range(4)
    ]
    thrice = plan.filter(pl.col("exported_key") == pl.col("uid") + "-2")
    assert len(thrice) == 16
    assert ordered(Draws(draws.table, draws.repeats.reverse(), draws.settings, {}), NAMES).equals(plan)
    assert plan["uid"].to_list() != sorted(plan["uid"])


def test_names_can_tell_how_many_there_are(draws: Draws) -> None:
    plan = ordered(draws, "data/{split}-{number:05d}-of-{count:05d}.parquet")
    assert plan["exported_shard"].unique(maintain_order=True).to_list() == [
        f"data/train-{number:05d}-of-00004.parquet" for number in range(4)
    ]


def test_one_row_group_an_output_shard_with_the_ranges_of_its_members(draws: Draws, tmp_path: Path) -> None:
    with Cluster(workers=2) as cluster:
        plan = make_export_plan(draws, tmp_path, NAMES, cluster)
    with pq.ParquetFile(tmp_path / PLAN) as file:
        assert file.num_row_groups == len(plan.shards) == 4
        parts = [read_planned(file.read_row_group(group)) for group in range(4)]
    assert [key for part in parts for key in part.keys] == plan.samples["exported_key"].to_list()
    for part in parts:
        assert part.suffixes == ["jpg", "json", "txt"] * len(part.keys)
        assert part.borders.tolist() == list(range(0, 3 * len(part.keys) + 1, 3))
        for number, place in enumerate(np.repeat(part.places, 3)):
            start, size = part.offsets[number], part.sizes[number]
            member = Path(plan.containers[place]).read_bytes()[start : start + size]
            assert member.startswith(
                {"jpg": b"\xff\xd8", "json": b"{", "txt": b"a picture of thing number"}[part.suffixes[number]]
            )


def test_the_layout_is_what_the_members_are(draws: Draws, tmp_path: Path) -> None:
    with Cluster(workers=2) as cluster:
        make_export_plan(draws, tmp_path, NAMES, cluster)
    layout = read_layout(tmp_path / PLAN, (COLUMNS["words"], COLUMNS["phash"]))
    assert layout.suffixes == (("jpg", "json", "txt"),)
    assert layout.scores.names == ["words", "phash"]


@given(st.lists(st.text(st.sampled_from("aB./\n\u00e9"), min_size=1, max_size=12), min_size=1))
def test_suffixes_are_cut_as_ingest_cuts_them(names: list[str]) -> None:
    found = suffixes_of(pl.Series(names)).to_list()
    assert [suffix or "" for suffix in found] == [split_name(name)[1] for name in names]


MEMBERS = st.lists(st.tuples(st.sampled_from(["jpg", "txt", "json", "cls"]), st.integers(0, 1100)), max_size=4)


@st.composite
def containers(draw: st.DrawFn) -> tuple[dict[str, bytes], list[dict[str, Any]]]:
    """Tars, and the lines of a plan with their samples, in any order, members in any order."""
    tars, lines = {}, []
    for place in draw(st.sampled_from([["a"], ["a", "b"]])):
        sink = io.BytesIO()
        with tarfile.open(fileobj=sink, mode="w") as archive:
            for row, members in enumerate(draw(st.lists(MEMBERS, max_size=4))):
                there = []
                for suffix, size in dict(members).items():
                    info = tarfile.TarInfo(f"{row}.{suffix}")
                    info.size = size
                    archive.addfile(info, io.BytesIO(bytes([65 + row]) * size))
                    there.append({"name": info.name, "offset": archive.offset - size - -size % 512, "size": size})
                lines.append({"exported_key": f"{place}{row}", "place": place, "row": row, "members": there})
        tars[place] = sink.getvalue()
    for line in lines:
        parts = [
            (m["name"].split(".")[1], m["size"], tars[line["place"]][m["offset"] :][: m["size"]])
            for m in line["members"]
        ]
        line["content_hash"] = content_hash((s, n, xxhash.xxh3_128_hexdigest(content)) for s, n, content in parts)
    return tars, draw(st.permutations(lines))


SCHEMA = pa.schema(
    [
        ("exported_key", pa.string()),
        ("place", pa.string()),
        ("row", pa.int64()),
        ("members", pa.list_(MEMBER)),
        ("content_hash", pa.string()),
    ]
)


@given(containers())
def test_what_is_read_to_its_place_is_the_samples(drawn: tuple[dict[str, bytes], list[dict[str, Any]]]) -> None:
    tars, lines = drawn
    found = read_planned(pa.Table.from_pylist(lines, SCHEMA))
    block = found.block([{}] * len(lines), Room(0))
    for place, targets in found.targets(block).items():
        for offset, view in targets:
            view[:] = tars[place][offset : offset + len(view)]
    block.clear_padding()
    assert found.differing(block) is None
    for line, sample in zip(lines, block.samples(), strict=True):
        assert sample.key == line["exported_key"]
        members = {m["name"].split(".")[1]: tars[line["place"]][m["offset"] :][: m["size"]] for m in line["members"]}
        assert sample.members == sorted(members.items())
    for start, size in zip(block.starts, block.sizes, strict=True):
        assert not block.content[start + size : start + size + -size % 512].any()
    if block.sizes.any():
        block.content[block.starts[np.flatnonzero(block.sizes)[0]]] ^= 1
        assert found.differing(block) is not None


def test_members_in_the_order_of_their_suffixes_are_read_at_once() -> None:
    members = [("0.jpg", 512, 700), ("0.json", 2048, 10), ("0.txt", 3072, 5)]
    there = [dict(zip(("name", "offset", "size"), one, strict=True)) for one in members]
    line = {"exported_key": "k", "place": "p", "row": 0, "members": there, "content_hash": None}
    found = read_planned(pa.Table.from_pylist([line], SCHEMA))
    (target,) = found.targets(found.block([{}], Room(0)))["p"]
    assert (target[0], len(target[1])) == (512, 3072 + 5 - 512)


@given(st.lists(st.integers(0, 50), max_size=40))
def test_windows_are_bounded_and_whole(sizes: list[int]) -> None:
    count = len(sizes)
    whole = Planned(
        keys=[str(number) for number in range(count)],
        places=["p"] * count,
        rows=list(range(count)),
        hashes=[None] * count,
        given=[{}] * count,
        borders=np.arange(count + 1),
        suffixes=["jpg"] * count,
        offsets=np.zeros(count, np.int64),
        sizes=np.array(sizes, np.int64),
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(planned, "WINDOW_BYTES", 60)
        windows = list(whole.windows())
    assert [key for window in windows for key in window.keys] == whole.keys
    assert [size for window in windows for size in window.sizes] == sizes
    assert all(window.keys and window.sizes[:-1].sum() <= 60 for window in windows)
    assert all(window.sizes.sum() > 60 for window, _ in pairwise(windows))
    assert all(window.borders.tolist() == list(range(len(window.keys) + 1)) for window in windows)

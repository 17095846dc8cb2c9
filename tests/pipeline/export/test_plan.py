"""The plan: a row group per output shard with the ranges of its samples, read in windows of bounded size."""

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import polars as pl
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.cluster import Cluster
from pipeline.export import write
from pipeline.export.draws import Draws
from pipeline.export.plan import PLAN, make_export_plan, ordered, read_layout, suffixes_of
from pipeline.export.write import Wanted, _windows, wanted
from pipeline.resolve import resolve
from pipeline.run import run
from pipeline.shards.rows import split_name
from schemas.columns import COLUMNS
from schemas.recipe import Export

NAMES = "{folder}{number:05d}.tar"


@pytest.fixture
def draws(make_pool: Callable[..., Path], ray_cluster: object) -> Draws:
    """Every sample of a pool of 48, every third one three times."""
    with Cluster(workers=2) as cluster:
        table = run(resolve(make_pool()), cluster, until="select").chosen.table
    pool = table.samples.filter(pl.col("role") == "pool").sort("uid").with_row_index()
    repeats = pl.when(pl.col("index") % 3 == 0).then(3).otherwise(1).cast(pl.Int32).alias("repeats")
    return Draws(table, pool.select("uid", repeats), Export(samples_per_shard=20), {})


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
        lines = [line for group in range(4) for line in wanted(file.read_row_group(group))]
    assert [line.key for line in lines] == plan.samples["exported_key"].to_list()
    for line in lines:
        content = Path(plan.containers[line.place]).read_bytes()
        members = {suffix: content[start : start + size] for suffix, start, size in line.members}
        assert sorted(members) == ["jpg", "json", "txt"]
        assert members["jpg"].startswith(b"\xff\xd8") and members["txt"].startswith(b"a picture of thing number")


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


@given(st.lists(st.integers(0, 50), max_size=40))
def test_windows_are_bounded_and_whole(sizes: list[int]) -> None:
    samples = [Wanted(str(n), "p", n, None, [("jpg", 0, size)]) for n, size in enumerate(sizes)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(write, "WINDOW_BYTES", 60)
        windows = list(_windows(samples))
    assert [sample for window in windows for sample in window] == samples
    assert all(window and sum(sample.size for sample in window[:-1]) <= 60 for window in windows)
    assert all(sum(sample.size for sample in window) > 60 for window, _ in pairwise(windows))

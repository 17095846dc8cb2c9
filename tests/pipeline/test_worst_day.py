"""Bad shards by the dozen, workers that die, disks that are full or read-only: named, counted, and over when mended."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import polars as pl
import pytest

from pipeline.cluster import Cluster
from pipeline.ledger import read_ledger
from pipeline.resolve import resolve
from pipeline.run import run
from schemas.errors import CuveeError
from tests.bench.test_kill import EXTRA
from tests.pipeline.test_same_bytes import tree

KILLER = """
import os, signal
from typing import Literal
import pyarrow as pa
from schemas.columns import KEY, column
from stages.stage import Stage

DEADLY = column("deadly", pa.int8(), "never written where it kills")


class Deadly(Stage):
    kind: Literal["deadly"] = "deadly"
    reads, writes = (KEY,), (DEADLY,)

    def open(self):
        def score(batch):
            if "s000013" in batch["key"].to_pylist():
                os.kill(os.getpid(), signal.SIGKILL)
            none = pa.nulls(batch.num_rows, pa.string())
            return pa.record_batch([pa.nulls(batch.num_rows, pa.int8()).fill_null(0), none], self.returns())

        return score
"""


def with_bad_shards(recipe: Path, count: int, setting: str = "") -> Path:
    for number in range(count):
        (recipe.parent / "pool" / "alpha" / f"bad{number:03d}.tar").write_bytes(b"no tar at all" * 100)
    recipe.write_text(recipe.read_text() + setting)
    return recipe


def test_a_run_goes_on_past_ten_bad_shards(make_pool: Callable[..., Path], ray_cluster: object) -> None:
    recipe = with_bad_shards(make_pool(), 10)
    outcome = run(resolve(recipe), Cluster(), until="select")
    bad = outcome.ledger.filter(pl.col("key").is_null())
    assert bad["reason"].to_list() == ["unreadable_shard"] * 10
    assert any("10 of 15 shards cannot be read (10 unreadable_shard)" in note for note in outcome.record["notes"])


@pytest.mark.parametrize(
    ("count", "setting"),
    [(11, ""), (3, "max_bad_shards: 2\n"), (1, "max_bad_shards: 0\n"), (4, "max_bad_shards: 0.4\n")],
)
def test_it_stops_at_too_many_and_lists_them(
    make_pool: Callable[..., Path], ray_cluster: object, count: int, setting: str
) -> None:
    recipe = with_bad_shards(make_pool(), count, setting)
    for _ in range(2):  # what is remembered from the first time counts as well
        with pytest.raises(CuveeError, match=r"shards cannot be read \(unreadable_shard \d+\).*max_bad_shards"):
            run(resolve(recipe), Cluster(), until="select")
    listed = read_ledger(sorted((recipe.parent / "work" / "runs").glob("*"))[-1] / "ledger")
    assert set(listed["reason"]) == {"unreadable_shard"} and len(listed)


def test_a_shard_that_kills_its_workers_is_named_and_the_rest_goes_on(
    make_pool: Callable[..., Path], ray_cluster: object
) -> None:
    recipe = make_pool()
    (recipe.parent / "killer.py").write_text(KILLER)
    recipe.write_text(recipe.read_text() + "  - {kind: deadly}\nplugins: [killer.py]\n")
    outcome = run(resolve(recipe), Cluster(), until="select")
    bad = outcome.ledger.filter(pl.col("status") != "kept")
    assert bad.select("source", "reason", "key").rows() == [("alpha", "worker_died", None)]
    assert outcome.record["samples"]["kept"] == 3 * 12
    again = run(resolve(recipe), Cluster(), until="select")
    assert again.record["computed"], "a shard that failed for want of memory has to be tried again"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Mounts a file system of its own; a second call changes its options."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted: list[str] = []

    def mount(options: str) -> Path:
        remount = "remount," if mounted else ""
        command = ["mount", "-t", "tmpfs", "-o", remount + options, "tmpfs", str(place)]
        if os.geteuid() or subprocess.run(command, capture_output=True, check=False).returncode:
            pytest.skip("only root can mount a disk that is full")
        mounted.append(options)
        return place

    yield mount
    if mounted:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


def command(recipe: Path) -> "subprocess.CompletedProcess[str]":
    line = [sys.executable, "-m", "pipeline.cli", "run", str(recipe), "--workers", "2"]
    return subprocess.run(line, capture_output=True, text=True, check=False)


def on_disk(recipe: Path, disk: Path) -> Path:
    text = recipe.read_text().replace("workspace: ./work", f"workspace: {disk}/work")
    (recipe.parent / "disk.yaml").write_text(text)
    return recipe.parent / "disk.yaml"


def test_a_full_and_a_read_only_disk_cost_nothing_but_time(
    make_pool: Callable[..., Path], small_disk: Callable[[str], Path]
) -> None:
    recipe = make_pool(shards=6, rows=24, extra=EXTRA)
    ran = command(recipe)
    assert ran.returncode == 0, ran.stderr
    expected = tree(recipe.parent / "work" / "export" / "small")

    disk = small_disk("size=200k")
    full = command(on_disk(recipe, disk))
    assert full.returncode == 1 and "No space left" in full.stderr and "run again" in full.stderr, full.stderr
    assert "Traceback" not in full.stderr

    small_disk("ro,size=200k")
    refused = command(on_disk(recipe, disk))
    assert refused.returncode == 1 and "cannot be written" in refused.stderr, refused.stderr

    small_disk("rw,size=64m")
    ran = command(on_disk(recipe, disk))
    assert ran.returncode == 0, ran.stderr
    assert tree(disk / "work" / "export" / "small") == expected
    assert not list((disk / "work").rglob(".*"))

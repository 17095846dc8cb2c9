"""Same pool, recipe and seed: the same bytes out, whatever the workers, the listing order and the crashes."""

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from tests.pools import sample, write_tar

ONE_KIND = """select:
  - {kind: exact_duplicates, of: sample}
  - {kind: exact_duplicates, prefer: words}
  - {kind: at_least, column: words, value: 3}
"""
SELECT = """select:
  - {kind: at_least, column: words, value: 3}
  - {kind: near_duplicate_images, max_distance: 4}
  - {kind: dsir, target: target, samples: 150}
export: {kind: webdataset, samples: 120, samples_per_shard: 50, columns: [words, phash]}
"""


def tree(folder: Path) -> dict[str, str]:
    """relative path -> sha256 of every file below a folder that must not be empty."""
    digests = {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    assert any(name.endswith(".tar") for name in digests), f"{folder} holds no shard"
    return digests


def cuvee(recipe: Path, *options: str) -> subprocess.Popen[str]:
    command = [str(Path(sys.executable).with_name("cuvee")), "run", str(recipe), *options]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)


def finished(process: subprocess.Popen[str]) -> None:
    _, errors = process.communicate()
    assert process.returncode == 0, errors


def test_steps_of_one_kind_make_one_ledger_at_any_number_of_workers(make_pool: Callable[..., Path]) -> None:
    recipe = make_pool(shards=3, extra=ONE_KIND)
    twice = [{**sample(0), "__key__": b"same"}, {**sample(0, "word"), "__key__": b"other"}, sample(50, "a ball")]
    write_tar(recipe.parent / "pool" / "alpha" / "twins.tar", twice)
    work, ledgers = recipe.parent / "work", []
    for workers in ("1", "2"):
        finished(cuvee(recipe, "--workers", workers, "--until", "select"))
        files = sorted(work.glob("runs/*/ledger/*.parquet"))
        ledgers.append({file.name: file.read_bytes() for file in files})
        steps = pl.concat(map(pl.read_parquet, files)).filter(pl.col("status") == "dropped")["decided_by"]
        shutil.rmtree(work)
    assert ledgers[0] == ledgers[1]
    assert sorted(steps) == ["at_least", "exact_duplicates", "exact_duplicates_2"]


def test_workers_order_and_a_kill_change_no_byte(make_pool: Callable[..., Path]) -> None:
    one = make_pool(folder="one", shards=12, rows=24, extra=SELECT)
    finished(cuvee(one, "--workers", "1"))
    expected = tree(one.parent / "work" / "export" / "small")

    shuffled = make_pool(folder="two", shards=12, rows=24, extra=SELECT, shuffled=True)
    finished(cuvee(shuffled, "--workers", "2"))
    assert tree(shuffled.parent / "work" / "export" / "small") == expected

    killed = make_pool(folder="three", shards=12, rows=24, extra=SELECT)
    there, missing = kill_half_way(killed)
    assert there and missing, f"killed with {there} sidecars there and {missing} missing"
    finished(cuvee(killed, "--workers", "2"))
    assert tree(killed.parent / "work" / "export" / "small") == expected
    leftovers = [path for path in (killed.parent / "work").rglob(".*") if path.name != ".staged"]
    assert not leftovers


def kill_half_way(recipe: Path) -> tuple[int, int]:
    """SIGKILL the driver as soon as a sidecar stands; returns how many stood then and how many did not."""
    scores = recipe.parent / "work" / "scores"
    process = cuvee(recipe, "--workers", "2")
    while process.poll() is None and not list(scores.glob("perceptual_hash-*/*.parquet")):
        time.sleep(0.002)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    there = len(list(scores.glob("perceptual_hash-*/*.parquet")))
    return there, 25 - there


def test_foreign_packages_in_the_working_directory_are_not_imported(
    make_pool: Callable[..., Path], tmp_path: Path
) -> None:
    recipe = make_pool(extra=SELECT.replace("samples: 150", "samples: 15").replace("samples: 120", "samples: 10"))
    home = tmp_path / "home"
    for package in ("pipeline", "stages", "schemas", "jobs"):
        (home / package).mkdir(parents=True)
        (home / package / "__init__.py").write_text(f"raise ImportError('a stranger called {package} was imported')\n")
        shutil.copy(home / package / "__init__.py", home / package / "worker.py")
    command = [str(Path(sys.executable).with_name("cuvee")), "run", str(recipe), "--workers", "1"]
    ran = subprocess.run(command, cwd=home, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert "stranger" not in ran.stderr


def test_workers_that_import_a_stranger_are_refused_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pipeline import cluster
    from schemas.errors import CuveeError

    (tmp_path / "pipeline").mkdir()
    (tmp_path / "pipeline" / "other.py").write_text("here = 'another version'\n")
    with cluster.Cluster(workers=2) as connection:
        ray = connection.ray
        monkeypatch.setattr(cluster, "PACKAGE_ROOT", tmp_path)
        with pytest.raises(CuveeError, match="import `pipeline` from"):
            cluster.refuse_strangers(ray)

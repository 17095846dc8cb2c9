"""Exports of one small pool in every format, and what their readers should find in them."""

import json
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest

from tests.pools import sample, write_tar

if TYPE_CHECKING:
    from pipeline.export.draws import Draws

ROOT = Path(__file__).resolve().parents[3]
READERS = ROOT / ".venv-readers" / "bin" / "python"
SPLIT = {"train": 0.7, "holdout": 0.3}


def mixed(number: int) -> dict[str, bytes]:
    """A sample of the pool: some hold a .cls, some no .json, some a PNG under a jpg's place; captions are not ASCII."""
    made = sample(number, f"une image n° {number}: 図")
    if number % 3 == 0:
        made["cls"] = str(number % 10).encode()
    if number % 4 == 0:
        del made["json"]
    if number % 5 == 0:
        made["png"] = made.pop("jpg")
    return made


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory, ray_cluster: object) -> Callable[..., Path]:
    """Exports the pool as a kind, with or without a split, once a session; returns the folder."""
    from pipeline.cluster import Cluster
    from pipeline.resolve import resolve
    from pipeline.run import run

    home = tmp_path_factory.mktemp("exports")
    for source, start in (("alpha", 0), ("beta", 100)):
        for shard in range(2):
            first = start + 20 * shard
            write_tar(home / "pool" / source / f"{shard:05d}.tar", [mixed(n) for n in range(first, first + 20)])

    def make(kind: str, split: bool = False) -> Path:
        name = f"{kind}-split" if split else kind
        recipe = home / f"{name}.yaml"
        if not recipe.exists():
            recipe.write_text(RECIPE.format(name=name, kind=kind, split=json.dumps(SPLIT if split else None)))
            with Cluster(workers=2) as cluster:
                run(resolve(recipe), cluster)
        return home / "work" / "export" / name

    return make


RECIPE = """name: {name}
workspace: ./work
seed: 5
pool:
  - {{source: alpha, shards: "pool/alpha/*.tar"}}
  - {{source: beta, shards: "pool/beta/*.tar"}}
score: [{{kind: image_header}}, {{kind: caption_text}}, {{kind: perceptual_hash}}]
export: {{kind: {kind}, samples: 70, samples_per_shard: 16, columns: [words, phash, aspect_ratio], split: {split}}}
"""


@pytest.fixture(scope="session")
def truth() -> Callable[..., dict[str, dict[str, bytes]]]:
    """Exported key -> members of the sample as the standard library reads them in the pool; of all or of one split."""

    def read(folder: Path, split: str = "") -> dict[str, dict[str, bytes]]:
        pool = folder.parents[2] / "pool"
        sources: dict[tuple[str, str], dict[str, bytes]] = {}
        for path in sorted(pool.rglob("*.tar")):
            with tarfile.open(path) as archive:
                for member in archive:
                    stream = archive.extractfile(member)
                    assert stream is not None
                    key, suffix = member.name.split(".", 1)
                    sources.setdefault((path.parent.name, key), {})[suffix] = stream.read()
        members = pl.read_parquet(folder / "members.parquet")
        wanted = members.filter(pl.col("exported_shard").str.contains(split))
        found = wanted.select("exported_key", "source", "key").iter_rows()
        return {exported: sources[source, key] for exported, source, key in found}

    return read


@pytest.fixture(scope="session")
def read_elsewhere() -> Callable[..., Any]:
    """Runs a script of `readers/` with the python that has the other readers; returns the JSON on its last line."""
    if not READERS.exists():
        pytest.skip("the other readers are not installed: `make readers` installs them")

    def run(script: str, *arguments: object) -> Any:
        path = Path(__file__).parent / "readers" / script
        command = [str(READERS), "-W", "ignore", str(path), *map(str, arguments)]
        ran = subprocess.run(command, capture_output=True, text=True, timeout=300)
        assert ran.returncode == 0, ran.stderr[-4000:]
        return json.loads(ran.stdout.splitlines()[-1])

    return run


@pytest.fixture
def draws(make_pool: Callable[..., Path], ray_cluster: object) -> "Draws":
    """Every sample of a pool of 48, every third one three times."""
    from pipeline.cluster import Cluster
    from pipeline.export.draws import Draws
    from pipeline.resolve import resolve
    from pipeline.run import run
    from schemas.recipe import Export

    with Cluster(workers=2) as cluster:
        table = run(resolve(make_pool()), cluster, until="select").chosen.table
    pool = table.samples.filter(pl.col("role") == "pool").sort("uid").with_row_index()
    repeats = pl.when(pl.col("index") % 3 == 0).then(3).otherwise(1).cast(pl.Int32).alias("repeats")
    return Draws(table, pool.select("uid", repeats), Export(samples_per_shard=20), {})


def image_of(members: dict[str, bytes]) -> bytes:
    """The one image of a sample of this pool."""
    return members.get("jpg") or members["png"]

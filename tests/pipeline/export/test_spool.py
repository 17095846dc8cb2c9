"""Containers without random access: the export is the bytes that tars of the same samples give, each read once."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.cluster import Cluster
from pipeline.export import plan as plan_module
from pipeline.export import spool
from pipeline.export.spool import Spool, needs_spool, spooled_bytes, spooled_index
from pipeline.resolve import resolve
from pipeline.run import run
from pipeline.shards import Container
from tests.pipeline.export.test_export import tree
from tests.pools import sample, write_tar

ROWS = 30
SHARDS = 3
EXPORT = "export: {samples: 50, samples_per_shard: 8}\n"


def rows(shard: int) -> list[dict[str, bytes]]:
    """Samples whose .json is spelled as a row of a table would be, the key among its columns."""
    made = [sample(number) for number in range(shard * ROWS, shard * ROWS + ROWS)]
    facts = [{"key": one["__key__"].decode(), "number": number} for number, one in enumerate(made)]
    return [one | {"json": json.dumps(fact).encode()} for one, fact in zip(made, facts, strict=True)]


def as_tar(path: Path, samples: list[dict[str, bytes]]) -> None:
    write_tar(path.with_suffix(".tar"), samples)


def as_tar_gz(path: Path, samples: list[dict[str, bytes]]) -> None:
    as_tar(path, samples)
    plain = path.with_suffix(".tar")
    path.with_suffix(".tar.gz").write_bytes(gzip.compress(plain.read_bytes(), mtime=0))
    plain.unlink()


def as_parquet(path: Path, samples: list[dict[str, bytes]]) -> None:
    columns = {
        "key": [one["__key__"].decode() for one in samples],
        "image": [one["jpg"] for one in samples],
        "caption": [one["txt"].decode() for one in samples],
        "number": [json.loads(one["json"])["number"] for one in samples],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path.with_suffix(".parquet"), row_group_size=7)


POOLS: dict[str, tuple[Callable[..., None], str]] = {
    "tar": (as_tar, 'shards: "pool/*.tar"'),
    "tar.gz": (as_tar_gz, 'shards: "pool/*.tar.gz"'),
    "parquet": (as_parquet, 'parquet: "pool/*.parquet"'),
}


def curated(home: Path, kind: str) -> Path:
    """Exports the same samples from containers of one kind; returns the export's folder."""
    write, place = POOLS[kind]
    for shard in range(SHARDS):
        write(home / "pool" / f"{shard:05d}", rows(shard))
    recipe = home / "recipe.yaml"
    recipe.write_text(f"name: spool\nworkspace: ./work\npool:\n  - {{source: one, {place}}}\n{EXPORT}")
    with Cluster(workers=2) as cluster:
        return run(resolve(recipe), cluster).resolved.export_folder


@pytest.fixture(scope="module")
def from_tars(tmp_path_factory: pytest.TempPathFactory, ray_cluster: object) -> dict[str, str]:
    return tree(curated(tmp_path_factory.mktemp("tars"), "tar"))


@pytest.mark.parametrize("kind", ["tar.gz", "parquet"])
def test_the_shards_are_those_of_tars(
    from_tars: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    tasks: list[str] = []

    def counted(cluster: Any, job: Any, names: Any) -> Any:
        tasks.extend(names)
        return original(cluster, job, names)

    original = plan_module.run_tasks
    monkeypatch.setattr(plan_module, "run_tasks", counted)
    found = tree(curated(tmp_path, kind))
    assert len(tasks) == len(set(tasks)) == SHARDS  # each container is opened by one task
    shards = [name for name in from_tars if name.endswith(".tar")]
    assert len(shards) == 7
    assert {name: found[name] for name in shards} == {name: from_tars[name] for name in shards}


def test_one_pass_over_a_container(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ray_cluster: object) -> None:
    """The spool of a container is made from one call that asks for all drawn rows, in ascending order."""
    home = tmp_path / "once"
    curated(home, "tar.gz")
    with Cluster(workers=2) as cluster:
        table = run(resolve(home / "recipe.yaml"), cluster).chosen.table
    shard = table.shards[0]
    place = f"{shard.digest}/{shard.input.source}"
    drawn = pa.table({"place": [place] * 4, "digest": [shard.digest] * 4, "row": [7, 3, 3, 21]})
    pq.write_table(drawn, tmp_path / "drawn.parquet")
    asked: list[list[int]] = []

    def read(container: Container, index: pa.Table) -> Any:
        asked.append(index["start"].to_pylist())
        return original(container, index)

    original = spool.read_members
    monkeypatch.setattr(spool, "read_members", read)
    facts = {place: {"container": vars(shard.input.container), "index": shard.input.index_address}}
    folder = tmp_path / "spool"
    list(Spool(str(home / "work"), str(folder), facts, str(tmp_path / "drawn.parquet")).unpack(place))
    assert len(asked) == 1 and asked[0] == sorted(set(asked[0])) and len(asked[0]) == 3
    content, there = spooled_bytes(folder, place).read_bytes(), pq.read_table(spooled_index(folder, place))
    assert there["row"].to_pylist() == [3, 7, 21]
    bodies = [[content[m["offset"] :][: m["size"]] for m in members] for members in there["members"].to_pylist()]
    of_shard = rows(int(Path(shard.input.container.path).name.split(".")[0]))
    expected = [[of_shard[row][suffix] for suffix in ("jpg", "json", "txt")] for row in (3, 7, 21)]
    assert [sorted(found) for found in bodies] == [sorted(found) for found in expected]


def test_only_a_plain_tar_has_random_access(tmp_path: Path) -> None:
    write_tar(tmp_path / "a.tar", rows(0))
    (tmp_path / "b.tar").write_bytes(gzip.compress((tmp_path / "a.tar").read_bytes()))
    assert [needs_spool(Container(str(tmp_path / name), "tar")) for name in ("a.tar", "b.tar")] == [False, True]
    assert needs_spool(Container(str(tmp_path / "c.parquet"), "parquet"))

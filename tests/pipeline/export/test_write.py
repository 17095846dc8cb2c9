"""Shards made in memory that is used again are the same shards, however long the disk takes."""

from collections.abc import Callable
from concurrent.futures import Executor, Future
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from pipeline.cluster import Cluster
from pipeline.export import planned
from pipeline.export.direct import Room
from pipeline.export.draws import Draws
from pipeline.export.export import FORMATS
from pipeline.export.plan import PLAN, make_export_plan, read_layout
from pipeline.export.write import WriteShard
from schemas.errors import CuveeError, ShardError


@pytest.fixture
def job(draws: Draws, tmp_path: Path) -> Callable[..., WriteShard]:
    """A job that writes the drawn samples as some kind to a folder."""

    def make(kind: str = "webdataset") -> WriteShard:
        folder = tmp_path / kind
        names = FORMATS[kind].names
        with Cluster(workers=2) as cluster:
            plan = make_export_plan(draws, folder, names, cluster)
        return WriteShard(
            workspace=str(draws.table.resolved.workspace.root),
            staging=str(folder),
            plan=str(folder / PLAN),
            groups={shard: number for number, shard in enumerate(plan.shards)},
            containers=plan.containers,
            columns={},
            format=FORMATS[kind](read_layout(folder / PLAN, ())),
        )

    return make


class Slow(Executor):
    """Does nothing until somebody waits for it."""

    def submit(self, function: Callable[..., Any], /, *given: Any, **named: Any) -> Future[Any]:
        class Waiting(Future[Any]):
            def result(self, timeout: float | None = None) -> Any:
                if not self.done():
                    self.set_result(function(*given, **named))
                return super().result(timeout)

        return Waiting()


@pytest.mark.parametrize("kind", ["webdataset", "energon", "parquet"])
def test_no_window_and_no_disk_changes_a_shard(
    job: Callable[..., WriteShard], kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = job(kind)
    done = dict(write.open()("\n".join(write.groups)))
    assert list(done) == list(write.groups)
    written = {name: (Path(write.staging) / name).read_bytes() for name in done}
    monkeypatch.setattr(planned, "WINDOW_BYTES", 3000)
    room = Room(1 << 20)
    for name, digest in done.items():
        (Path(write.staging) / name).unlink()
        with pq.ParquetFile(write.plan) as plan, ExitStack() as closing:
            assert write._made(name, plan, room, closing, Slow()) == digest
        assert (Path(write.staging) / name).read_bytes() == written[name]


def test_an_input_that_changed_is_told_and_leaves_nothing(job: Callable[..., WriteShard]) -> None:
    write = job()
    changed = Path(next(iter(write.containers.values())))
    changed.write_bytes(changed.read_bytes().replace(b"a picture of thing", b"a PICTURE of thing"))
    with pytest.raises(ShardError, match="not what it was when it was scored"):
        list(write.open()("\n".join(write.groups)))
    assert not list(Path(write.staging).glob(".writing-*"))


def test_a_full_disk_is_told_and_leaves_nothing(
    job: Callable[..., WriteShard], monkeypatch: pytest.MonkeyPatch
) -> None:
    write = job()
    first, second, *_ = write.groups

    def full(file: object, view: memoryview) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pipeline.export.direct.DirectFile._put", full)
    with pytest.raises(CuveeError, match="No space left on device; free space"):
        list(write.open()(f"{first}\n{second}"))
    assert [path.name for path in Path(write.staging).iterdir()] == [PLAN]

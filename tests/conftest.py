"""One Ray start per test session, a pool small enough to look at, and the trained models where they are.

Tests run in two processes. All files that start Ray stay in one of them: two clusters at a time on two cores would wait
for each other.
"""

from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest
from hypothesis import settings

from tests.pools import sample, write_tar

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared"

# The same examples every time: what a run finds does not depend on luck.
PARENT = settings.get_profile(settings.get_current_profile_name())
settings.register_profile("no timing, no luck", parent=PARENT, deadline=None, derandomize=True)
settings.load_profile("no timing, no luck")


STARTS_RAY = ("tests/pipeline/", "tests/bench/", "tests/hostile/", "tests/real/")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> object:
    """A file's tests stay together, and so do all those of files that start Ray."""
    from xdist.scheduler import LoadFileScheduling

    @cache
    def starts_ray(file: str) -> bool:
        return file.startswith(STARTS_RAY) or "ray_cluster" in (ROOT / file).read_text()

    class ByCluster(LoadFileScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> str:
            file = str(super()._split_scope(nodeid))
            return "ray" if starts_ray(file) else file

    return ByCluster(config, log)


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[object]:
    """A local cluster of two CPUs that every test shares."""
    from pipeline.cluster import Cluster

    with Cluster(workers=2) as cluster:
        yield cluster.ray


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with real data and models; tests that need it skip where it is missing."""
    if not (SHARED / "data").is_dir():
        pytest.skip("the real data folder ../shared/data is not here")
    return SHARED


@pytest.fixture
def make_pool(tmp_path: Path) -> Callable[..., Path]:
    """Writes a pool of two sources and a target, and a recipe over it without a model; returns the recipe."""

    def make(
        *, shards: int = 2, rows: int = 12, folder: str = "project", extra: str = "", shuffled: bool = False
    ) -> Path:
        home = tmp_path / folder
        for source, start in (("alpha", 0), ("beta", 10_000)):
            for shard in range(shards):
                numbers = range(start + shard * rows, start + (shard + 1) * rows)
                write_tar(home / "pool" / source / f"{shard:05d}.tar", [sample(number) for number in numbers])
        write_tar(home / "target" / "00000.tar", [sample(number) for number in range(20_000, 20_000 + rows)])
        sources = ["alpha", "beta"][:: -1 if shuffled else 1]
        pool = "\n".join(f'  - {{source: {name}, shards: "pool/{name}/*.tar"}}' for name in sources)
        recipe = home / "recipe.yaml"
        recipe.write_text(
            f"name: small\nworkspace: ./work\nseed: 3\npool:\n{pool}\n"
            'target: {shards: "target/*.tar"}\n'
            "score:\n  - {kind: image_header}\n  - {kind: caption_text}\n  - {kind: perceptual_hash}\n" + extra
        )
        return recipe

    return make

"""A node that goes away in the middle of scoring costs time, not bytes."""

import hashlib
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.cluster import Cluster as Connection
from pipeline.resolve import resolve
from pipeline.run import run


@pytest.fixture
def three_nodes() -> Iterator[Any]:
    """A head and two workers on this machine, as real raylets."""
    import ray
    from ray.cluster_utils import Cluster

    if ray.is_initialized():
        ray.shutdown()
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    yield cluster, [cluster.add_node(num_cpus=1) for _ in range(2)]
    ray.shutdown()
    cluster.shutdown()


def sidecars(recipe: Path) -> dict[str, str]:
    root = recipe.parent / "work" / "scores"
    # A worker of the lost node may live on here for a moment and stage a slice again; sidecars are what counts.
    files = sorted(path for path in root.rglob("*.parquet") if ".staged" not in path.parts)
    assert files
    return {path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_a_removed_node_changes_no_byte(make_pool: Callable[..., Path], three_nodes: Any) -> None:
    cluster, nodes = three_nodes
    calm = make_pool(folder="calm", shards=15, rows=60)
    with Connection(cluster.address) as connection:
        run(resolve(calm), connection, until="score")
    expected = sidecars(calm)

    hit = make_pool(folder="hit", shards=15, rows=60)
    scores = hit.parent / "work" / "scores"
    stood: list[int] = []

    def remove_when_under_way() -> None:
        while not list(scores.glob("image_header-*/*.parquet")):
            threading.Event().wait(0.005)
        stood.append(len(list(scores.glob("image_header-*/*.parquet"))))
        cluster.remove_node(nodes[0], allow_graceful=False)

    watcher = threading.Thread(target=remove_when_under_way)
    watcher.start()
    with Connection(cluster.address) as connection:
        run(resolve(hit), connection, until="score")
    watcher.join()
    assert 0 < stood[0] < 31
    assert sidecars(hit) == expected

from collections.abc import Iterator

import numpy as np
import pytest

from stages import clusters
from stages.clusters import nearest_centroids, probed_centroids
from stages.vectors import cosines, cosines_with, pair_cosines


def unit(n: int, d: int, seed: int) -> np.ndarray:
    rows = np.random.Generator(np.random.Philox(seed)).normal(size=(n, d))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float16)


def by_hand(rows: np.ndarray, centroids: np.ndarray, probe: int) -> tuple[np.ndarray, np.ndarray]:
    exact = cosines(rows, centroids)
    order = np.argsort(-exact, axis=1, kind="stable")[:, :probe]
    return order, np.take_along_axis(exact, order, axis=1)


@pytest.mark.parametrize("probe", [1, 2, 5])
@pytest.mark.parametrize("width", [3, 64])
def test_an_index_and_exact_ranks_name_the_nearest(probe: int, width: int) -> None:
    rows, centroids = unit(2_500, width, 1), unit(60, width, 2)
    expected = by_hand(rows, centroids, probe)
    for index in (None, clusters.flat_index(centroids)):
        number, cosine = probed_centroids(rows, centroids, probe, index)
        assert (number == expected[0]).all() and cosine.tobytes() == expected[1].tobytes()


def test_where_the_index_cannot_know_all_centroids_are_compared() -> None:
    rows, one = unit(50, 16, 1), unit(1, 16, 2)
    centroids = np.repeat(one, 40, axis=0)  # all alike: the first is the nearest
    number, _ = probed_centroids(rows, centroids, 2, clusters.flat_index(centroids))
    assert number.tolist() == [[0, 1]] * 50


@pytest.fixture
def faiss_gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """faiss as where it sees a GPU, with its index on the CPU; what it was asked for."""
    import faiss

    asked: list[str] = []
    monkeypatch.delenv(clusters.NO_INDEX_ON_GPU, raising=False)
    monkeypatch.setattr(faiss, "get_num_gpus", lambda: 1)
    monkeypatch.setattr(faiss, "StandardGpuResources", lambda: asked.append("resources"), raising=False)

    def moved(_: object, __: int, index: object) -> object:
        asked.append("index")
        return index

    monkeypatch.setattr(faiss, "index_cpu_to_gpu", moved, raising=False)
    clusters._gpu_resources.cache_clear()
    yield asked
    clusters._gpu_resources.cache_clear()


def test_workers_leave_a_gpu_alone_that_they_were_not_given(
    faiss_gpu: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipeline.cluster import WORKER_ENVIRONMENT

    rows, centroids = unit(50, 16, 1), unit(20, 16, 2)
    for _ in range(2):
        nearest_centroids(rows, centroids)
    assert faiss_gpu == ["resources", "index", "index"]
    for name, value in WORKER_ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    nearest_centroids(rows, centroids)
    assert len(faiss_gpu) == 3


@pytest.mark.parametrize("where", ["index_cpu_to_gpu", "StandardGpuResources", "search"])
def test_a_gpu_without_room_changes_no_result(
    where: str, faiss_gpu: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import faiss

    class Full:
        def search(self, *_: object) -> None:
            raise RuntimeError("out of memory")

    def full(*_: object) -> Full:
        if where == "search":
            return Full()
        raise RuntimeError("out of memory")

    monkeypatch.setattr(faiss, "index_cpu_to_gpu" if where == "search" else where, full, raising=False)
    rows, centroids = unit(1_500, 16, 1), unit(20, 16, 2)
    number, cosine = probed_centroids(rows, centroids, 2)
    expected = by_hand(rows, centroids, 2)
    assert (number == expected[0]).all() and cosine.tobytes() == expected[1].tobytes()


def test_more_probes_than_centroids_are_all_of_them() -> None:
    number, cosine = probed_centroids(unit(4, 8, 1), unit(3, 8, 2), 8)
    assert number.shape == cosine.shape == (4, 3)
    assert nearest_centroids(unit(0, 8, 1), unit(3, 8, 2))[0].shape == (0,)


def test_rounding_stays_within_the_bound() -> None:
    rows, centroids = unit(500, 512, 3), unit(300, 512, 4)
    found = clusters.unit_singles(rows) @ clusters.unit_singles(centroids).T
    assert np.abs(found - cosines(rows, centroids)).max() < clusters.rounding_error(512) / 4


def test_pairs_and_matrices_have_the_same_bits() -> None:
    rows, others = unit(40, 96, 5), unit(40, 96, 6)
    whole = cosines(rows, others)
    assert pair_cosines(rows, others).tobytes() == np.diag(whole).tobytes()
    named = np.tile(np.arange(40), (40, 1))
    assert cosines_with(rows, others, named).tobytes() == whole.tobytes()

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

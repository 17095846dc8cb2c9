import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.errors import CuveeError
from stages.train.metrics.align_report import align_report, alignment
from stages.train.metrics.cka import cka, cknna
from stages.train.metrics.ima import ima
from stages.train.metrics.kernels import gram, hsic_unbiased
from stages.train.metrics.mutual_knn import chance, mutual_knn


def rows(n: int, d: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, d))


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


@given(st.integers(0, 30), st.integers(2, 9))
def test_ima_against_every_pair(seed: int, n: int) -> None:
    visual, text = rows(n, 4, seed), rows(n, 4, seed + 1) + 1
    other_visual, other_text = rows(n, 4, seed + 2), rows(n, 4, seed + 3)
    found = ima((visual, text), (other_visual, other_text))
    cosines = np.array([[cosine(v, t) for t in text] for v in visual])
    mismatched = np.mean([cosine(v, t) for v, t in zip(other_visual, other_text, strict=True)])
    assert found.matched == pytest.approx(np.diag(cosines).mean())
    assert found.mismatched == pytest.approx(mismatched)
    assert found.gap == pytest.approx(np.diag(cosines).mean() - mismatched)
    assert found.crossed == pytest.approx(cosines[~np.eye(n, dtype=bool)].mean())
    assert found.of_means == pytest.approx(cosine(visual.mean(0), text.mean(0)))


def test_a_narrow_cone_and_what_any_image_does_to_text_lift_the_cosine_and_not_the_gap() -> None:
    visual, text, others = rows(40, 8, 0), rows(40, 8, 1), rows(40, 8, 2)
    cone = ima((visual + 30, text + 30), (others + 30, text + 30))
    assert cone.matched > 0.99 and abs(cone.gap) < 1e-2
    mixed = ima((visual, text + visual), (others, text + others))
    assert mixed.matched - mixed.crossed > 0.5 and abs(mixed.gap) < 0.1


def brute_neighbours(x: np.ndarray, i: int, k: int) -> set[int]:
    return set(sorted((j for j in range(len(x)) if j != i), key=lambda j: (-cosine(x[i], x[j]), j))[:k])


@settings(max_examples=20)
@given(st.integers(0, 30), st.integers(1, 5))
def test_mutual_knn_against_sets(seed: int, k: int) -> None:
    x, y = rows(12, 3, seed), rows(12, 5, seed + 100)
    shared = [len(brute_neighbours(x, i, k) & brute_neighbours(y, i, k)) / k for i in range(12)]
    assert mutual_knn(x, y, k) == pytest.approx(np.mean(shared))
    assert mutual_knn(x, x, k) == 1
    assert mutual_knn(x, 3 * x, k) == 1


def test_chance_is_what_unrelated_rows_share() -> None:
    assert chance(1024, 10) == pytest.approx(0.0098, abs=5e-5)  # at the settings of the paper
    drawn = [mutual_knn(rows(60, 8, seed), rows(60, 8, seed + 500), 6) for seed in range(40)]
    assert np.mean(drawn) == pytest.approx(chance(60, 6), abs=3 * np.std(drawn) / np.sqrt(40))


def test_unbiased_hsic_is_the_mean_over_quadruples() -> None:
    """The U-statistic by its definition (Song et al., 2012): over all ordered quadruples of different rows."""
    from itertools import permutations

    x, y = rows(6, 3, 0), rows(6, 2, 1)
    k, l_ = gram(x), gram(y)
    terms = [k[a, b] * (l_[a, b] + l_[c, d] - 2 * l_[a, c]) for a, b, c, d in permutations(range(6), 4)]
    assert hsic_unbiased(k, l_) == pytest.approx(np.mean(terms))


def test_cka_of_a_rotation_is_one_and_of_noise_near_zero_in_few_rows() -> None:
    x = rows(30, 200, 0)
    turned, _ = np.linalg.qr(rows(200, 200, 1))
    assert cka(x, x @ turned) == pytest.approx(1)
    unrelated = [cka(rows(30, 200, seed), rows(30, 200, seed + 99)) for seed in range(30)]
    assert abs(np.mean(unrelated)) < 0.02  # the biased one says more than 0.8 here
    assert cka(np.ones((5, 3)), x[:5]) == 0


def test_cknna_sees_what_neighbours_share() -> None:
    x, y = rows(40, 6, 0), rows(40, 6, 1)
    assert cknna(x, x, 5) == pytest.approx(1)
    assert abs(cknna(x, y, 5)) < 0.2
    assert cknna(x, y, 39) == pytest.approx(cka(x, y))  # all others are neighbours: the kernels are whole
    near = cknna(x, x + 0.3 * y, 5)
    assert cknna(x, y, 5) < near < 1


def test_shuffled_pairs_score_what_chance_does() -> None:
    x = rows(60, 10, 0)
    found = alignment(x, x + 0.2 * rows(60, 10, 1), seed=3, k=5)
    assert found["mutual_knn"] > 0.5 and found["cka"] > 0.9
    assert found["mutual_knn_mismatched"] == pytest.approx(found["mutual_knn_chance"], abs=0.03)
    assert abs(found["cka_mismatched"]) < 0.05
    assert found == alignment(x, x + 0.2 * rows(60, 10, 1), seed=3, k=5)


def test_the_report_recommends_the_first_layer_that_is_as_good_as_the_best() -> None:
    images, noise = rows(80, 12, 0), rows(80, 12, 1)
    layers = [noise, images + 0.9 * noise, images + 0.02 * noise, images, images + 2 * noise]
    report = align_report(images, layers, seed=0)
    scores = [layer["mutual_knn"] for layer in report["layers"]]
    assert scores[3] == 1 and scores[1] < 0.95 < scores[2]
    assert report["recommended"] == {"inject_layer": 2, "by": "mutual_knn", "within": 0.95, "heuristic": True}


def test_too_few_rows_are_refused() -> None:
    with pytest.raises(CuveeError, match="more than 10"):
        mutual_knn(rows(10, 2, 0), rows(10, 2, 0))
    with pytest.raises(CuveeError, match="no direction"):
        cka(np.zeros((5, 2)), rows(5, 2, 0))
    with pytest.raises(CuveeError, match="two equal ones"):
        ima((rows(3, 2, 0), rows(4, 2, 0)), (rows(3, 2, 0), rows(3, 2, 1)))

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.errors import CuveeError
from stages.train.metrics.mir import frechet_distance, layer_distance, mir, without_outliers


def states(rows: int, width: int, seed: int, rank: int | None = None) -> np.ndarray:
    drawn = np.random.default_rng(seed)
    mixing = drawn.normal(size=(rank or width, width)) * drawn.gamma(1.0, size=(1, width))
    return drawn.normal(size=(rows, rank or width)) @ mixing + drawn.normal(size=width)


def by_square_root(left: np.ndarray, right: np.ndarray) -> float:
    """The definition, with scipy's square root of the product of the covariances."""
    from scipy.linalg import sqrtm

    mine, theirs = np.cov(left, rowvar=False), np.cov(right, rowvar=False)
    root = np.real(np.trace(sqrtm(mine @ theirs)))
    return float(np.square(left.mean(0) - right.mean(0)).sum() + np.trace(mine) + np.trace(theirs) - 2 * root)


@pytest.mark.parametrize("rows", [(200, 150), (9, 150), (200, 7), (9, 6), (2, 2)])
@pytest.mark.parametrize("rank", [None, 5])
def test_the_trace_is_that_of_scipys_square_root_at_any_rank(rows: tuple[int, int], rank: int | None) -> None:
    left, right = (states(count, 24, seed, rank) for seed, count in enumerate(rows))
    assert frechet_distance(left, right) == pytest.approx(by_square_root(left, right), rel=1e-6)


def test_known_distances() -> None:
    line = np.array([[-1.0], [1.0]])
    assert frechet_distance(line * 3, line + 4) == pytest.approx(16 + (3 - 1) ** 2 * 2)  # variances 18 and 2
    same = states(40, 8, 0)
    assert frechet_distance(same, same) == pytest.approx(0, abs=1e-12 * np.square(same).sum())
    apart = np.eye(4)
    # Covariances that share no direction: no cross term is left.
    one, other = apart[:2] - apart[:2].mean(0), apart[2:] - apart[2:].mean(0)
    assert frechet_distance(one, other) == pytest.approx(2.0)


@given(st.integers(0, 50), st.floats(0.01, 100))
def test_mir_knows_no_unit_and_no_rotation(seed: int, scale: float) -> None:
    visual, text = states(30, 6, seed), states(25, 6, seed + 1)
    turned, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(6, 6)))
    plain = layer_distance(visual, text)
    assert layer_distance(visual * scale, text * scale) == pytest.approx(plain, rel=1e-9)
    norms = [np.linalg.norm(rows, axis=1) for rows in (visual, text)]
    if not any((np.abs(n - np.median(n)) > 2.9 * n.std(ddof=1)).any() for n in norms):  # medians do turn
        assert layer_distance(visual @ turned, text @ turned) == pytest.approx(plain, rel=1e-9)


def test_text_has_mean_norm_one_and_layers_add_up_under_the_logarithm() -> None:
    visual, text = states(30, 6, 1), states(30, 6, 2)
    scale = 1 / np.linalg.norm(text, axis=1).mean()
    alone = layer_distance(visual, text)
    assert alone == pytest.approx(frechet_distance(without_outliers(visual * scale), without_outliers(text * scale)))
    assert mir([(visual, text), (text, visual)]) == pytest.approx(
        np.log10(alone + layer_distance(text, visual)), rel=1e-12
    )


def test_an_outlier_becomes_the_median_state() -> None:
    rows = np.random.default_rng(0).normal(size=(101, 5)) + 10
    rows[17] *= 100
    cleaned = without_outliers(rows)
    assert np.array_equal(cleaned[17], np.median(rows, axis=0))
    assert np.array_equal(np.delete(cleaned, 17, axis=0), np.delete(rows, 17, axis=0))
    assert rows[17, 0] > 500
    calm = np.random.default_rng(1).uniform(1, 2, (50, 5))
    assert np.array_equal(without_outliers(calm), calm)


def test_a_modality_that_moves_away_scores_higher() -> None:
    text = states(80, 6, 3)
    near, far = text + 0.1, text + 2.0
    assert mir([(near, text)]) < mir([(far, text)])


@pytest.mark.parametrize(
    ("layers", "said"),
    [
        ([], "found none"),
        ([(np.ones((1, 2)), np.ones((5, 2)))], "found 1 visual and 5 text"),
        ([(np.full((2, 2), np.nan), np.ones((5, 2)))], "not finite"),
        ([(np.ones((2, 2)), np.zeros((5, 2)))], "every text state of a layer is zero"),
        ([(np.ones((3, 2)), np.ones((5, 2)))], "the same in every layer"),
    ],
)
def test_what_has_no_value_is_refused(layers: list[tuple[np.ndarray, np.ndarray]], said: str) -> None:
    with pytest.raises(CuveeError, match=said):
        mir(layers)

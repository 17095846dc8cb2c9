"""White rows have unit covariance; distances are Mahalanobis distances; blocks change no bit."""

import numpy as np
import pytest

import stages.transport.whitening as module
from stages.transport.whitening import fit_whitening
from tests.stages.vectors import unit

SPREAD = np.random.default_rng(0).normal(size=(12, 12))


def rows(n: int, seed: int) -> np.ndarray:
    values = unit(n, 12, seed).astype(float) @ SPREAD + 2
    return (values / np.linalg.norm(values, axis=1, keepdims=True)).astype(np.float16)


def test_white_rows_are_white():
    found = rows(4000, 1).astype(float)
    fit = fit_whitening(rows(4000, 1), 1e-6)
    white = found @ fit.inverse - (fit.mean[:, None] * fit.inverse).sum(axis=0)
    assert np.cov(white.T, bias=True) == pytest.approx(np.eye(12), abs=0.02)
    pair = found[0] - found[1]
    expected = pair @ np.linalg.inv(np.cov(found.T, bias=True)) @ pair
    assert np.square(white[0] - white[1]).sum() == pytest.approx(expected, rel=0.02)


def test_full_shrinkage_only_centres():
    found = rows(500, 2)
    centred = found.astype(float) - found.astype(float).mean(axis=0)
    expected = centred / np.linalg.norm(centred, axis=1, keepdims=True)
    assert fit_whitening(found, 1.0)(found).astype(float) == pytest.approx(expected, abs=2e-3)


def test_blocks_change_no_bit(monkeypatch):
    found = rows(999, 3)
    fit = fit_whitening(found, 0.1)
    expected = fit(found)
    monkeypatch.setattr(module, "BLOCK_ROWS", 10)
    assert fit(found).tobytes() == expected.tobytes()
    assert np.concatenate([fit(found[[i]]) for i in range(20)]).tobytes() == expected[:20].tobytes()


def test_products_on_the_grid_are_exact():
    found = rows(64, 4)
    fit = fit_whitening(found, 0.01)
    product = found.astype(float) @ fit.inverse
    scale = 2.0**24
    step = 2.0 ** np.floor(np.log2(np.abs(fit.inverse)[fit.inverse != 0].min()))
    while not (fit.inverse / step == np.rint(fit.inverse / step)).all():
        step /= 2
    whole = [[int(v * scale) for v in row] for row in found.astype(float)]
    grid = [[int(v / step) for v in row] for row in fit.inverse]
    exact = np.array(whole, object) @ np.array(grid, object)
    assert (product / step * scale).astype(object).tolist() == exact.astype(object).tolist()


def test_rows_that_are_all_alike():
    found = np.tile(rows(1, 5), (20, 1))
    assert (fit_whitening(found, 0.1)(found) == 0).all()
    other = fit_whitening(found, 0.1)(rows(3, 6))
    assert np.linalg.norm(other.astype(float), axis=1) == pytest.approx(np.ones(3), abs=1e-3)

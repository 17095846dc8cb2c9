"""NormSim against the norm of all dot products."""

import numpy as np
import polars as pl
import pytest

from stages.fitted_stage import Examples
from stages.rule import Context
from stages.target.best import Best
from stages.target.normsim import NormSim, gram
from tests.stages.vectors import batch, near, pairs, unit


@pytest.mark.parametrize("size", [1, 16, 17, 5000])
def test_equals_the_norms_of_all_dot_products(size: int) -> None:
    target, images = unit(size, 12, 1), unit(30, 12, 2)
    stage = NormSim()
    fit = stage.learn(Examples({"target": pairs(target, target)}, 0, {}))
    found = stage.open_with(fit, "")(batch(pairs(images, images), stage.reads))
    products = images.astype(np.float64) @ target.astype(np.float64).T
    assert found["normsim_2"].to_numpy() == pytest.approx(np.linalg.norm(products, axis=1), rel=1e-6)
    assert found["normsim_inf"].to_numpy() == pytest.approx(np.abs(products).max(axis=1), rel=1e-6)


def test_the_gram_matrix_is_exact() -> None:
    rows = unit(16, 6, 3)
    whole = [[int(a * 2**24) * int(b * 2**24) for b in row] for row in rows.astype(float) for a in row]
    exact = np.array(whole, object).reshape(16, 6, 6).sum(axis=0)
    assert (gram(rows) * 2.0**48).astype(object).tolist() == exact.tolist()


def test_a_target_image_is_its_own_nearest() -> None:
    target = unit(40, 12, 4)
    stage = NormSim()
    fit = stage.learn(Examples({"target": pairs(target, target)}, 0, {}))
    found = stage.open_with(fit, "")(batch(pairs(target, target), stage.reads))["normsim_inf"].to_numpy()
    assert found == pytest.approx(np.ones(40), abs=2e-3)


@pytest.mark.parametrize("column", ["normsim_2", "normsim_inf"])
@pytest.mark.parametrize("seed", range(3))
def test_the_tenth_that_looks_like_the_target_is_found(column: str, seed: int) -> None:
    """1,000 images of ten topics, a tenth of them of the target's: `best` on the score, at 10 %."""
    topics = unit(10, 32, seed)
    images = near(topics[np.arange(1000) % 10], 0.8, seed + 1)
    target = near(np.repeat(topics[:1], 60, axis=0), 0.8, seed + 2)
    stage = NormSim()
    fit = stage.learn(Examples({"target": pairs(target, target)}, 0, {}))
    scores = stage.open_with(fit, "")(batch(pairs(images, images), stage.reads))
    rows = pairs(images, images).select("uid", "source", pl.Series(column, scores[column].to_numpy()))
    lost = Best(column=column, fraction=0.1).judge(rows.lazy(), Context(0)).dropped["uid"]
    kept = [int(uid, 16) for uid in set(rows["uid"]) - set(lost)]
    assert len(kept) == 100 and np.mean([row % 10 == 0 for row in kept]) >= 0.95


@pytest.mark.parametrize("column", ["normsim_2", "normsim_inf"])
def test_noise_is_no_better_than_chance(column: str) -> None:
    """The target's rows are the pool's last ones by uid and hash, and by nothing else."""
    hits = []
    for seed in range(20):
        images, target = unit(400, 16, seed), unit(40, 16, seed + 500)
        fit = NormSim().learn(Examples({"target": pairs(target, target, first=360)}, 0, {}))
        scores = NormSim().open_with(fit, "")(batch(pairs(images, images), NormSim.reads))
        rows = pairs(images, images).select("uid", "source", pl.Series(column, scores[column].to_numpy()))
        lost = Best(column=column, fraction=0.1).judge(rows.lazy(), Context(seed)).dropped["uid"]
        hits.append(sum(int(uid, 16) >= 360 for uid in set(rows["uid"]) - set(lost)))
    assert abs(np.mean(hits) - 4) <= 2.6 * np.std(hits, ddof=1) / np.sqrt(20) < 2

"""negCLIPLoss against the formula in plain double precision, pair by pair."""

import math

import numpy as np
import polars as pl
import pytest

from schemas.columns import CONTENT_HASH
from stages.alignment.negcliploss import NegCLIPLoss, draw_batches
from stages.fitted_stage import Examples
from stages.noise import uniform_noise
from tests.stages.vectors import batch, near, pairs, unit


def scores(stage: NegCLIPLoss, pool: pl.DataFrame, rows: pl.DataFrame, seed: int = 3) -> np.ndarray:
    fit = stage.learn(Examples({"pool": pool}, seed, {}))
    found = stage.open_with(fit, "")(batch(rows, stage.reads))
    assert found["negcliploss_reason"].null_count == len(rows)
    return found["negcliploss"].to_numpy()


def by_hand(stage: NegCLIPLoss, pool: pl.DataFrame, row: dict[str, object], seed: int = 3) -> float:
    """The formula over batches drawn as the docstring says, with a running maximum in every logarithm."""
    others = pool.unique(CONTENT_HASH.name, keep="first", maintain_order=True)
    image, text = (np.array(row[name], np.float64) for name in ("image_embedding", "text_embedding"))
    terms = []
    for number in range(stage.batches):
        noise = uniform_noise(others["uid"].to_list(), seed, f"negcliploss {number}")
        ranked = others.with_columns(pl.Series("noise", noise)).sort("noise")
        drawn = ranked.filter(pl.col(CONTENT_HASH.name) != row[CONTENT_HASH.name]).head(stage.batch - 1)
        for own, name in ((image, "text_embedding"), (text, "image_embedding")):
            logits = [float(own @ np.array(v, np.float64)) / stage.temperature for v in drawn[name].to_list()]
            logits.append(float(image @ text) / stage.temperature)
            top = max(logits)
            terms.append(top + math.log(math.fsum(math.exp(logit - top) for logit in logits)))
    return float(image @ text) - stage.temperature / 2 * math.fsum(terms) / stage.batches


IMAGES = unit(60, 16, 1)
POOL = pairs(IMAGES, near(IMAGES, 0.8, 2))
STRANGERS = pairs(unit(7, 16, 5), unit(7, 16, 6), first=900)


@pytest.mark.parametrize("size", [2, 9, 59, 60, 61, 500])
@pytest.mark.parametrize("temperature", [0.005, 0.01, 0.07, 1.0])
def test_equals_the_formula_in_double_precision(size: int, temperature: float) -> None:
    stage = NegCLIPLoss(batch=size, batches=3, temperature=temperature)
    rows = pl.concat([POOL.head(12), STRANGERS])
    expected = [by_hand(stage, POOL, row) for row in rows.iter_rows(named=True)]
    assert np.abs(scores(stage, POOL, rows) - expected).max() < 1e-6


def test_vectors_that_fit_perfectly_and_not_at_all_stay_finite() -> None:
    same = unit(40, 8, 3)
    pool = pl.concat([pairs(same[:20], same[:20]), pairs(same[20:], -same[20:], first=20)])
    stage = NegCLIPLoss(temperature=0.005)
    found = scores(stage, pool, pool)
    assert np.isfinite(found).all() and (found <= 0).all()
    assert np.abs(found - [by_hand(stage, pool, row) for row in pool.iter_rows(named=True)]).max() < 1e-6
    assert found[:20].min() > found[20:].max()


def test_a_row_is_scored_alike_alone_and_with_any_neighbours() -> None:
    stage = NegCLIPLoss(batch=20, batches=4)
    whole = scores(stage, POOL, POOL)
    assert np.array_equal(scores(stage, POOL, POOL[::-1])[::-1], whole)
    for row in (0, 17, 59):
        assert scores(stage, POOL, POOL[row])[0] == pytest.approx(whole[row], abs=1e-7)


def test_the_size_of_blocks_is_no_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = NegCLIPLoss(batch=20, batches=4)
    whole = scores(stage, POOL, POOL)
    monkeypatch.setattr("stages.alignment.negcliploss.REFERENCES_AT_ONCE", 7)
    assert np.abs(scores(stage, POOL, POOL) - whole).max() < 1e-7


def test_equal_content_counts_once() -> None:
    twins = POOL.head(10).with_columns(pl.format("f{}", pl.col("uid").str.slice(1)).alias("uid"))
    stage = NegCLIPLoss()
    assert np.array_equal(scores(stage, pl.concat([POOL, twins]), POOL), scores(stage, POOL, POOL))


def test_batches_depend_on_seed_and_uid_alone() -> None:
    uids = [f"{number:032x}" for number in range(50)]
    drawn = draw_batches(uids, 10, 4, 3)
    assert drawn.shape == (4, 10) and np.array_equal(drawn, draw_batches(uids, 10, 4, 3))
    assert not np.array_equal(drawn, draw_batches(uids, 10, 4, 4))
    assert all(len(set(batch)) == 10 for batch in drawn.tolist()) and len({tuple(b) for b in drawn.tolist()}) == 4
    fewer = [uid for place, uid in enumerate(uids) if place not in drawn[0]]
    assert set(draw_batches(fewer, 40, 1, 3)[0]) == set(range(40)), "the whole pool where it is no larger"
    assert draw_batches(uids, 50, 4, 3).shape == (4, 50) and draw_batches(uids, 51, 4, 3).shape == (1, 50)


def authors(pool: pl.DataFrame, size: int, seed: int) -> np.ndarray:
    """The authors' way: cut the shuffled pool into batches, 10 times over, T = 0.07."""
    rng = np.random.default_rng(seed)
    f, g = (np.array(pool[name].to_list(), np.float64) for name in ("image_embedding", "text_embedding"))
    logits = f @ g.T / 0.07
    total = np.zeros(len(pool))
    for _ in range(10):
        for part in np.split(rng.permutation(len(pool)), len(pool) // size):
            block = np.exp(logits[np.ix_(part, part)])
            total[part] += np.log(block.sum(axis=0)) + np.log(block.sum(axis=1))
    found: np.ndarray = np.diag(logits) * 0.07 - 0.07 / 2 * total / 10
    return found


def test_agrees_with_batches_that_partition_the_pool_as_well_as_these_with_each_other() -> None:
    images = unit(600, 16, 11)
    pool = pairs(images, near(images, 1.0, 12))
    ours = scores(NegCLIPLoss(temperature=0.07, batch=100), pool, pool)
    one, other = authors(pool, 100, 0), authors(pool, 100, 1)
    among_them = np.corrcoef(one, other)[0, 1]
    assert np.corrcoef(one, ours)[0, 1] > among_them - 0.01
    assert abs(one.mean() - ours.mean()) < 0.01
    whole = scores(NegCLIPLoss(temperature=0.07), pool, pool)
    assert np.allclose(whole, authors(pool, 600, 0), atol=1e-6), "one batch is the whole pool for both"

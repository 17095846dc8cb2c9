"""GOT-D: gradients against exact transports, planted targets, and the same bytes however the pool is cut."""

import math
import pickle

import numpy as np
import polars as pl
import pytest
from ray import cloudpickle
from scipy.stats import spearmanr

from schemas.errors import CuveeError
from stages.rule import Context
from stages.target.got_d import GotD
from stages.transport.distances import c_transform, squared_distances
from stages.transport.duals import transport
from stages.transport.gradients import Proxy, learned_round, target_potentials
from stages.vectors import Vectors
from tests.stages.vectors import pairs, unit


def clusters(rows: int, width: int, shares: np.ndarray, seed: int, spread: float = 1.0) -> Vectors:
    """Unit rows around fixed centres."""
    noise = np.random.default_rng(seed)
    centres = np.random.default_rng(9).normal(size=(len(shares), width))
    values = centres[noise.choice(len(shares), rows, p=shares)] + spread * noise.normal(size=(rows, width))
    return (values / np.linalg.norm(values, axis=1, keepdims=True)).astype(np.float16)


def gradients(pool: Vectors, target: Vectors) -> np.ndarray:
    return learned_round(Proxy(pool), target, 1, 1, 0.0).gradients(pool, target, 1, 0.0)


@pytest.mark.parametrize(("n", "m"), [(300, 97), (101, 60), (60, 101)])
def test_gradients_add_up_to_nothing_and_foretell_the_cost(n, m):
    pool = clusters(n, 16, np.full(6, 1 / 6), n)
    target = clusters(m, 16, np.array([0.5, 0.3, 0.2, 0, 0, 0]), m)
    found = gradients(pool, target)
    assert math.fsum(found) == pytest.approx(0, abs=1e-9)
    potentials = target_potentials(Proxy(pool), target, 1)
    f = c_transform(pool, target, potentials)
    others = (f.sum() - f) / (n - 1)
    assert found == pytest.approx(f - others, abs=1e-12)
    costs, even = squared_distances(pool, target), np.full(n, 1 / n)
    before = transport(costs, even).value
    step = 1e-7  # less than any group of rows differs in mass from any group of atoms: 1 / (n m)
    for row in np.argsort(found)[: n // 10]:
        mass = even - step / (n - 1)
        mass[row] = 1 / n + step
        change = transport(costs, mass).value - before
        assert found[row] < 0 and change < 0
        assert change == pytest.approx(step * found[row], rel=1e-4)


def test_transforms_give_back_the_potentials_of_the_batch():
    pool, target = clusters(301, 16, np.full(6, 1 / 6), 1), clusters(128, 16, np.full(3, 1 / 3), 2)
    solved = transport(squared_distances(pool, target))
    import ot

    _, log = ot.emd(np.full(301, 1 / 301), np.full(128, 1 / 128), squared_distances(pool, target), log=True)
    found = c_transform(pool, target, solved.atoms)
    assert found == pytest.approx(log["u"] + log["v"].mean(), abs=1e-6)


def test_batches_rank_as_the_whole_does():
    pool = clusters(5000, 32, np.full(12, 1 / 12), 3)
    target = clusters(499, 32, np.random.default_rng(4).dirichlet(np.ones(12)), 5)
    whole = gradients(pool, target)
    for size in (500, 1000):
        step = learned_round(Proxy(pool), target, 5000 // size, 1, 0.0)
        assert spearmanr(whole, step.gradients(pool, target, 1, 0.0)).statistic >= 0.99
    few = learned_round(Proxy(pool[:1000]), target, 4, 1, 0.0)
    assert spearmanr(whole, few.gradients(pool, target, 1, 0.0)).statistic >= 0.95


def table(rows: Vectors, texts: Vectors | None = None) -> pl.DataFrame:
    return pairs(rows, rows if texts is None else texts)


def judged(rule: GotD, pool: pl.DataFrame, target: Vectors, **given):
    return rule.judge(pool.lazy(), Context(3, table(target).lazy(), **given))


def kept(verdict) -> set[str]:
    return set(verdict.scores["uid"]) - set(verdict.dropped["uid"])


PLANTED = np.arange(0, 2000, 10)


def planted() -> tuple[pl.DataFrame, Vectors]:
    """One row in ten like the target."""
    pool = clusters(2000, 32, np.r_[np.full(9, 1 / 9), 0], 6)
    pool[PLANTED] = clusters(200, 32, np.r_[np.zeros(9), 1], 7)
    return table(pool), clusters(150, 32, np.r_[np.zeros(9), 1], 8)


@pytest.mark.parametrize("settings", [{}, {"rounds": 1}, {"softness": 0.01}, {"batches": 1, "atoms": 99}])
def test_finds_what_is_like_the_target(settings):
    pool, target = planted()
    found = kept(judged(GotD(fraction=0.1, **settings), pool, target))
    assert len(found) == 200
    assert len(found & set(pool["uid"][PLANTED])) / 200 >= 0.95


def test_whitening_sees_past_directions_that_only_spread():
    def blurred(rows: Vectors, seed: int) -> Vectors:
        values = np.concatenate([rows.astype(float), 1.5 * np.random.default_rng(seed).normal(size=(len(rows), 4))], 1)
        return (values / np.linalg.norm(values, axis=1, keepdims=True)).astype(np.float16)

    pool, target = planted()
    rows = blurred(np.array(pool["image_embedding"].to_list(), np.float16), 1)
    hits = []
    for whiten in (None, 0.01):
        found = kept(judged(GotD(samples=100, rounds=1, whiten=whiten), table(rows), blurred(target, 2)))
        hits.append(len(found & set(pool["uid"][PLANTED])))
    assert hits[1] >= 90 and hits[1] > hits[0] + 10, hits


def test_noise_is_no_better_than_chance():
    hits = []
    for seed in range(20):
        pool = table(unit(400, 16, seed))
        label = set(np.random.default_rng(seed).permutation(pool["uid"].to_list())[:40])
        hits.append(len(kept(judged(GotD(fraction=0.1), pool, unit(50, 16, seed + 500))) & label))
    mean, error = np.mean(hits), np.std(hits, ddof=1) / np.sqrt(len(hits))
    assert abs(mean - 4) <= 2.1 * error + 1e-9, (mean, error)


def test_rounds_come_nearer_to_a_target_of_several_kinds():
    pool = clusters(1500, 32, np.full(10, 0.1), 10)
    target = clusters(301, 32, np.r_[np.full(5, 0.2), np.zeros(5)], 11)
    costs = {}
    for rounds in (1, 10):
        costs[rounds] = judged(GotD(samples=150, batches=1, rounds=rounds), table(pool), target).evidence["transport"]
    assert costs[10]["selected"] < 0.8 * costs[1]["selected"]
    assert costs[10]["selected"] < 0.8 * costs[10]["random"]
    assert costs[1]["rows"] == {"selected": 150, "random": 150, "pool": 500}


SETTINGS = [
    {"rounds": 1},
    {"rounds": 3, "batches": 2, "atoms": 50},
    {"rounds": 2, "whiten": 0.2, "column": ("image_embedding", "text_embedding")},
]


@pytest.mark.parametrize("settings", SETTINGS)
def test_parts_and_shuffled_shards_change_nothing(settings):
    pool, target = planted()[0].head(500), planted()[1][:40]
    pool = pool.with_columns(
        pl.when(pl.int_range(500) % 97 == 5).then(None).otherwise("image_embedding").alias("image_embedding")
    )
    rule = GotD(samples=60, **settings)
    whole = judged(rule, pool, target)
    assert whole.dropped.filter(pl.col("reason") == "image_embedding_missing").height == 6
    for parts in (2, 7):
        shard = np.random.default_rng(parts).integers(0, parts, len(pool))
        cut = [pool.filter(pl.Series(shard == number)).lazy() for number in range(parts)]
        for order in (cut, cut[::-1]):
            other = judged(rule, pool, target, parts=tuple(order), map=travelling)
            assert other.scores.equals(whole.scores) and other.dropped.equals(whole.dropped)
            assert other.evidence == whole.evidence and other.fit == whole.fit


def travelling(function, pieces):
    """Functions, pieces and results through pickles, as on a cluster."""
    sent = cloudpickle.dumps(function)
    return [pickle.loads(pickle.dumps(cloudpickle.loads(sent)(piece))) for piece in pieces]


@pytest.mark.parametrize("settings", SETTINGS)
def test_a_pinned_fit_scores_new_rows_as_the_old(settings):
    pool, target = planted()[0].head(500), planted()[1][:40]
    rule = GotD(samples=60, **settings)
    first = judged(rule, pool, target)
    same = judged(rule, pool, target, fit=first.fit)
    assert same.fit == first.fit and same.scores.equals(first.scores)
    assert same.dropped.equals(first.dropped)
    newer = pairs(unit(300, 32, 20), unit(300, 32, 21), first=5000)
    more = judged(rule, pl.concat([pool, newer]), unit(10, 32, 22), fit=first.fit)
    assert more.scores.filter(pl.col("uid").is_in(pool["uid"].implode())).equals(first.scores)


def test_a_proxy_stands_for_what_a_model_knows():
    """What the model has seen already pulls less: its side of the target is not chosen again."""
    target = clusters(301, 32, np.r_[0.5, 0.5, np.zeros(8)], 30)
    sides = np.concatenate([clusters(200, 32, np.eye(10)[0], 31), clusters(200, 32, np.eye(10)[1], 32)])
    known = table(clusters(400, 32, np.eye(10)[0], 33))
    rule = GotD(samples=100, rounds=2, proxy="seen")
    assert rule.needs_references() == ("seen",)
    found = kept(judged(rule, table(sides), target, references={"seen": known.lazy()}))
    assert len(found & set(table(sides)["uid"][200:])) >= 95


def test_both_columns_count():
    """Images that say nothing beside texts that say all."""
    pool = clusters(2000, 32, np.r_[np.full(9, 1 / 9), 0], 6)
    pool[PLANTED] = clusters(200, 32, np.r_[np.zeros(9), 1], 7)
    mixed, target = table(unit(2000, 32, 42), pool), planted()[1]
    hits = {}
    for column in ("image_embedding", "text_embedding", ("image_embedding", "text_embedding")):
        found = kept(judged(GotD(samples=200, rounds=1, column=column), mixed, target))
        hits[column] = len(found & set(mixed["uid"][PLANTED])) / 200
    image, text, both = hits.values()
    assert text >= 0.95 and image < 0.2 and image < both


def test_refusals():
    pool, target = planted()
    with pytest.raises(ValueError, match="no embeddings; try 'image_embedding'"):
        GotD(samples=1, column="clip_score")
    with pytest.raises(ValueError, match="up to 8 different"):
        GotD(samples=1, column=("image_embedding", "image_embedding"))
    with pytest.raises(CuveeError, match="needs a target"):
        GotD(samples=1).judge(pool.lazy(), Context(0))
    with pytest.raises(CuveeError, match="of 32 numbers, the target of 8"):
        judged(GotD(samples=1), pool, unit(9, 8, 1))
    with pytest.raises(CuveeError, match="asked for 3000 samples"):
        judged(GotD(samples=3000), pool, target)
    empty = pool.with_columns(pl.lit(None, pool.schema["image_embedding"]).alias("image_embedding"))
    with pytest.raises(CuveeError, match="0 eligible rows, 2000 not eligible: 2000 as image_embedding_missing"):
        judged(GotD(samples=1), empty, target)
    with pytest.raises(CuveeError, match="none of the target's 2000 samples"):
        GotD(samples=1).judge(pool.lazy(), Context(0, empty.lazy()))


def test_tokens_are_a_budget_too():
    pool, target = planted()
    worded = pool.with_columns(pl.lit("three plain words").alias("caption"))
    for rounds in (1, 4):
        found = kept(judged(GotD(tokens=600, rounds=rounds), worded, target))
        assert len(found) == 200 and len(found & set(pool["uid"][PLANTED])) >= 190


@pytest.mark.parametrize("rows", [1, 2, 3])
def test_tiny_pools(rows):
    verdict = judged(GotD(fraction=1.0, rounds=3), table(unit(rows, 8, 1)), unit(2, 8, 2))
    assert len(kept(verdict)) == rows

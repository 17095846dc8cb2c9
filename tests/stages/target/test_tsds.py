"""TSDS against a linear program and against the published procedure, near-duplicates, and the same bytes in parts."""

import heapq

import numpy as np
import polars as pl
import pytest
from scipy.optimize import linprog

from schemas.errors import CuveeError
from stages.rule import Context
from stages.target.tsds import Tsds
from stages.target.tsds.assignment import Plan, solve
from stages.target.tsds.density import densities
from stages.target.tsds.draw import chances, order, weights
from stages.transport.distances import squared_distances
from stages.transport.duals import transport
from stages.vectors import Vectors
from tests.stages.target.test_got_d import clusters, kept, planted, table, travelling
from tests.stages.vectors import near, pairs, unit


def judged(rule: Tsds, pool: pl.DataFrame, target: Vectors, seed: int = 3, **given):
    return rule.judge(pool.lazy(), Context(seed, table(target).lazy(), **given))


def linear_program(distances: np.ndarray, density: np.ndarray, alpha: float, scale: float) -> float:
    """min alpha / C <g, d> + (1 - alpha) t  s.t.  M rho_j g_ij <= t,  sum_j g_ij = 1 / M,  g >= 0."""
    n, m = distances.shape
    caps = np.column_stack([m * np.diag(np.repeat(density[None], m, axis=0).ravel()), -np.ones(n * m)])
    masses = np.column_stack([np.kron(np.eye(m), np.ones(n)), np.zeros(m)])
    goal = np.append(alpha / scale * distances.T.ravel(), 1 - alpha)
    return float(linprog(goal, A_ub=caps, b_ub=np.zeros(n * m), A_eq=masses, b_eq=np.full(m, 1 / m)).fun)


def objective(plan: Plan, squared: np.ndarray, density: np.ndarray, alpha: float, scale: float) -> float:
    """Of the plan's g (n, M)."""
    inside = (squared < plan.borders) * plan.inner + (squared == plan.borders) * plan.edges
    g = inside / density[:, None]
    assert g.sum(axis=0) == pytest.approx(np.full(squared.shape[1], 1 / squared.shape[1]))
    cap = squared.shape[1] * (g * density[:, None]).max()
    return float(alpha / scale * (g * np.sqrt(squared)).sum() + (1 - alpha) * cap)


@pytest.mark.parametrize(("alpha", "scale"), [(0.5, 5.0), (0.9, 1.0), (0.99, 1.0), (0.1, 5.0), (0.0, 1.0), (1.0, 1.0)])
@pytest.mark.parametrize("ties", [False, True])
def test_the_plan_is_optimal(alpha, scale, ties):
    rows, examples = unit(40, 6, 1), unit(5, 6, 2)
    if ties:
        rows = np.concatenate([rows[:20], rows[:10], rows[:10]])
    squared, density = squared_distances(rows, examples), densities(rows, 0.75, 1000)
    plan = solve(squared, np.full(5, 4.0), density, alpha, scale)
    best = linear_program(np.sqrt(squared), density, alpha, scale)
    assert objective(plan, squared, density, alpha, scale) == pytest.approx(best, rel=1e-7, abs=1e-9)
    assert plan.probabilities(squared, density).sum() == pytest.approx(1)


def published(distances: np.ndarray, density: np.ndarray, alpha: float, scale: float, most: int) -> np.ndarray:
    """(n,) probabilities by the published procedure: a heap of the next row that each example would fill."""
    n, m = distances.shape
    order = np.argsort(distances, axis=0, kind="stable")[:most].T
    near = np.take_along_axis(distances.T, order, axis=1)
    shares = 1 / density[order]
    heap = [(shares[i, 0], 0, i) for i in range(m)]
    heapq.heapify(heap)
    last, spent, slopes, s = [0] * m, near[:, 0] * shares[:, 0], np.zeros(m), 0.0
    while heap:
        s, k, i = heapq.heappop(heap)
        slopes[i] = near[i, k + 1] * s - spent[i]
        if alpha / scale * slopes.sum() >= (1 - alpha) * m:
            break
        last[i] = k
        if k < most - 2:
            heapq.heappush(heap, (s + shares[i, k + 1], k + 1, i))
            spent[i] += near[i, k + 1] * shares[i, k + 1]
    found = np.zeros(n)
    for i in range(m):
        full = order[i, : last[i] + 1]
        given = shares[i, : last[i] + 1] / m / s
        found[full] += given
        found[order[i, last[i] + 1]] += max(1 / m - given.sum(), 0)
    return found


@pytest.mark.parametrize("sigma", [0.0, 0.75, 1.2])
def test_probabilities_are_those_of_the_published_procedure(sigma):
    rows, examples = clusters(400, 16, np.full(8, 1 / 8), 3), clusters(10, 16, np.full(3, 1 / 3), 4)
    squared, density = squared_distances(rows, examples), densities(rows, sigma, 1000)
    for alpha in (0.5, 0.8, 0.95):
        plan = solve(squared, np.full(10, 4.0), density, alpha, 5.0)
        expected = published(np.sqrt(squared), density, alpha, 5.0, 400)
        assert not plan.exhausted
        assert plan.probabilities(squared, density) == pytest.approx(expected, abs=1e-12)


def test_without_further_neighbours_the_mass_stays_within_them():
    squared, density = squared_distances(unit(50, 6, 1), unit(4, 6, 2)), np.ones(50)
    radii = np.sort(squared, axis=0)[4]
    plan = solve(squared, radii, density, 0.0, 1.0)
    assert plan.exhausted
    near_any = (squared <= radii).any(axis=1)
    assert plan.probabilities(squared, density)[near_any].sum() == pytest.approx(1)
    assert plan.inner == pytest.approx(1 / (4 * 5))


def test_densities_by_brute_force():
    rows = np.concatenate([clusters(200, 12, np.full(3, 1 / 3), 5, 0.3), unit(50, 12, 6)])
    wide = rows.astype(float)
    kernel = np.maximum(1 - np.square(wide[:, None] - wide).sum(axis=2) / 0.75**2, 0)
    for neighbours in (1000, 20):
        expected = np.sort(kernel, axis=1)[:, -neighbours:].sum(axis=1)
        assert densities(rows, 0.75, neighbours) == pytest.approx(expected, abs=1e-9)
    assert (densities(rows, 0.0, 20) == 1).all()
    shuffled = np.random.default_rng(0).permutation(250)
    assert (densities(rows[shuffled], 0.75, 20) == densities(rows, 0.75, 20)[shuffled]).all()


def test_near_duplicates_share_what_one_of_them_would_get():
    rows, examples = unit(60, 16, 7), unit(4, 16, 8)
    squared = squared_distances(rows, examples)
    first = int(squared[:, 0].argmin())
    copies = np.concatenate([rows, near(np.repeat(rows[[first]], 9, axis=0), 0.01, 9)])

    def chance(found: Vectors, sigma: float) -> np.ndarray:
        costs, density = squared_distances(found, examples), densities(found, sigma, 1000)
        return solve(costs, np.full(4, 4.0), density, 0.5, 5.0).probabilities(costs, density)

    alone, shared, apart = chance(rows, 0.3), chance(copies, 0.3), chance(copies, 0.0)
    group = np.r_[first, 60 : 70 - 1]
    assert shared[group].sum() == pytest.approx(alone[first], rel=0.05)
    assert shared[group].max() < 1.2 * shared[group].mean()
    assert apart[group].sum() > 3 * alone[first]


UNEVEN = np.r_[0.4, 0.1, 0.1, 0.1, np.full(16, 0.3 / 16)]
FOUR = np.r_[np.full(4, 0.25), np.zeros(16)]


def test_on_a_toy_it_comes_as_near_as_the_published_draw_and_nearer_than_plain_neighbours():
    """1,000 candidates, 10 queries, 16 wide; much of the pool is about one of the four things that are asked for."""
    pool, queries = clusters(1000, 16, UNEVEN, 12, 0.7), clusters(10, 16, FOUR, 13, 0.7)
    squared, frame = squared_distances(pool, queries), table(pool)

    def cost(rows: np.ndarray) -> float:
        return transport(squared_distances(pool[rows], queries)).value

    chance = published(np.sqrt(squared), densities(pool, 0.75, 100), 0.5, 5.0, 100)
    noise = np.random.default_rng(0)
    theirs = [cost(np.repeat(np.arange(1000), noise.multinomial(100, chance / chance.sum()))) for _ in range(40)]
    rule = Tsds(samples=100, neighbours=100, density_neighbours=100)
    kept_by = [kept(judged(rule, frame, queries, seed)) for seed in range(10)]
    ours = [cost(np.flatnonzero(frame["uid"].is_in(list(uids)).to_numpy())) for uids in kept_by]
    plain = cost(np.argsort(squared.min(axis=1), kind="stable")[:100])
    assert np.mean(ours) <= np.mean(theirs) <= plain, (np.mean(ours), np.mean(theirs), plain)


@pytest.mark.parametrize("rows", [1, 5, 30, 49, 50, 60])
def test_a_draw_keeps_rows_as_often_as_repeats_would_name_them(rows):
    p = np.r_[np.random.default_rng(1).dirichlet(np.full(50, 0.7)), np.zeros(10)]
    wanted = chances(p, rows)
    assert wanted.sum() == pytest.approx(min(rows, 50)) and (wanted <= 1).all() and (wanted[p == 0] == 0).all()
    free = (wanted < 1) & (p > 0)
    if free.any():
        assert wanted[free] / p[free] == pytest.approx(np.full(free.sum(), (wanted[free] / p[free])[0]))
    hits, noise = np.zeros(60), np.random.default_rng(2)
    for _ in range(2000):
        score = np.full(60, -np.inf)
        score[p > 0] = order(wanted[p > 0], noise.random(50))
        hits[np.argsort(-score)[: min(rows, 50)]] += 1
    error = np.sqrt(wanted * (1 - wanted) / 2000)
    assert (np.abs(hits / 2000 - wanted) <= 4.5 * error + 0.01).all()


def test_finds_what_is_like_the_target():
    pool, target = planted()
    found = kept(judged(Tsds(samples=100), pool, target))
    assert len(found & set(pool["uid"][np.arange(0, 2000, 10)])) >= 90


def test_noise_is_no_better_than_chance():
    hits = []
    for seed in range(20):
        pool = table(unit(400, 16, seed))
        label = set(np.random.default_rng(seed).permutation(pool["uid"].to_list())[:40])
        hits.append(len(kept(judged(Tsds(fraction=0.1), pool, unit(50, 16, seed + 500))) & label))
    error = np.std(hits, ddof=1) / np.sqrt(len(hits))
    assert abs(np.mean(hits) - 4) <= 2.1 * error + 1e-9


SETTINGS = [
    {},
    {"candidates": 60, "neighbours": 30, "weigh": True},
    {"whiten": 0.2, "column": ("image_embedding", "text_embedding")},
]


@pytest.mark.parametrize("settings", SETTINGS)
def test_parts_and_shuffled_shards_change_nothing(settings):
    pool, target = planted()[0].head(500), planted()[1][:20]
    twins = pool.head(30).with_columns(("f" + pl.col("uid").str.slice(1)).alias("uid"))  # equal distances
    missing = pl.when(pl.int_range(pl.len()) % 97 == 5).then(None).otherwise("image_embedding").alias("image_embedding")
    pool = pl.concat([pool, twins]).with_columns(missing)
    rule = Tsds(samples=60, **settings)
    whole = judged(rule, pool, target)
    assert whole.dropped.filter(pl.col("reason") == "image_embedding_missing").height == 6
    if "candidates" in settings:
        assert whole.evidence["candidates"] <= 60 and len(whole.weights) == 60
    for parts in (2, 7):
        shard = np.random.default_rng(parts).integers(0, parts, len(pool))
        cut = [pool.filter(pl.Series(shard == number)).lazy() for number in range(parts)]
        for pieces in (cut, cut[::-1]):
            other = judged(rule, pool, target, parts=tuple(pieces), map=travelling)
            assert other.scores.equals(whole.scores) and other.dropped.equals(whole.dropped)
            assert other.evidence == whole.evidence and other.fit == whole.fit
            assert other.weights is None or other.weights.equals(whole.weights)


@pytest.mark.parametrize("settings", SETTINGS)
def test_a_pinned_plan_is_kept(settings):
    pool, target = planted()[0].head(500), planted()[1][:20]
    rule = Tsds(samples=60, **settings)
    first = judged(rule, pool, target)
    same = judged(rule, pool, target, fit=first.fit)
    assert same.fit == first.fit and same.scores.equals(first.scores) and same.dropped.equals(first.dropped)
    far = pairs(unit(300, 32, 20), unit(300, 32, 21), first=5000)
    more = judged(rule, pl.concat([pool, far]), unit(10, 32, 22), fit=first.fit)
    assert more.fit == first.fit
    alone = judged(rule, far, target, fit=first.fit)
    assert len(kept(alone)) == 60


def test_a_later_near_duplicate_takes_its_share():
    pool, target = planted()[0].head(500), planted()[1][:20]
    rule = Tsds(samples=60)
    first = judged(rule, pool, target)
    best = first.scores.sort("score")["uid"][-1]
    twins = pl.concat([pool.filter(uid=best).with_columns(pl.lit(f"{n:032x}").alias("uid")) for n in range(9000, 9009)])
    more = judged(rule, pl.concat([pool, twins]), target, fit=first.fit)
    before, after = (verdict.scores.filter(uid=best)["score"][0] for verdict in (first, more))
    assert after < before - 1  # ten where one stood: a tenth of the chance, where it stood alone
    assert len(kept(more) & set(twins["uid"]) | kept(more) & {best}) < 10


def test_rows_beyond_those_with_probability_follow_by_distance():
    pool, target = table(unit(300, 16, 1)), unit(3, 16, 2)
    verdict = judged(Tsds(samples=250), pool, target)
    count = verdict.evidence["with_probability"]
    rest = verdict.scores.sort("score", descending=True)[count:]
    assert (rest["score"] < -999).all() and (verdict.scores["score"] > -999).sum() == count
    nearest = dict(zip(pool["uid"], np.sqrt(squared_distances(unit(300, 16, 1), target).min(axis=1)), strict=True))
    assert rest["score"].to_list() == [-1000 - nearest[uid] for uid in rest["uid"]]


def test_weights_make_up_for_keeping_once_what_would_be_drawn_more_often():
    p = np.random.default_rng(1).dirichlet(np.full(50, 0.3))
    value, noise = np.random.default_rng(3).normal(size=50), np.random.default_rng(2)
    chance = chances(p, 20)
    assert (chance == 1).any()
    frame = pl.DataFrame({"uid": [str(number) for number in range(50)], "p": p, "chance": chance})
    found = []
    for _ in range(1000):
        rows = np.argsort(-order(chance, noise.random(50)))[:20]
        weight = weights(frame[rows])["weight"].to_numpy()
        found.append((weight * value[rows]).mean())
    error = np.std(found, ddof=1) / np.sqrt(1000)
    assert abs(np.mean(found) - p @ value) <= 3 * error + 0.005
    assert weights(frame.head(5).with_columns(p=0.0, chance=0.0))["weight"].to_list() == [1.0] * 5


def test_refusals():
    pool, target = planted()
    with pytest.raises(CuveeError, match="needs a target"):
        Tsds(samples=1).judge(pool.lazy(), Context(0))
    with pytest.raises(CuveeError, match="asked for 3000 samples"):
        judged(Tsds(samples=3000), pool, target)


@pytest.mark.parametrize("rows", [1, 2, 3])
def test_tiny_pools(rows):
    assert len(kept(judged(Tsds(fraction=1.0, weigh=True), table(unit(rows, 8, 1)), unit(2, 8, 2)))) == rows

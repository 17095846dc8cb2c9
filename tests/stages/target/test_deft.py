"""DEFT-UCS: quotas to the row, the nearest and the farthest by brute force, and a pool that is covered."""

from typing import Any

import numpy as np
import polars as pl
import pytest
from pydantic import ValidationError

from schemas.columns import IMAGE_EMBEDDING
from schemas.errors import CuveeError
from stages.clusters import nearest_centroids
from stages.noise import uniform_noise
from stages.rule import Context, Verdict
from stages.target.deft import Deft, core_set
from stages.vectors import Vectors, cosines
from tests.stages.vectors import lists, near, unit


def pool(rows: int, seed: int, topics: int = 6, width: int = 16) -> tuple[pl.DataFrame, Vectors]:
    """Topics of very different sizes."""
    shares = 1 / np.arange(1, topics + 1)
    topic = np.random.default_rng(seed).choice(topics, rows, p=shares / shares.sum())
    vectors = near(unit(topics, width, seed)[topic], 0.6, seed + 1)
    uids = [f"{row:05d}" for row in range(rows)]
    return pl.DataFrame({"uid": uids, "source": "s", IMAGE_EMBEDDING.name: pl.from_arrow(lists(vectors))}), vectors


def judged(rows: pl.DataFrame, seed: int = 0, **settings: Any) -> Verdict:
    return Deft(**settings).judge(rows.lazy(), Context(seed))


def kept(rows: pl.DataFrame, verdict: Verdict) -> list[int]:
    return sorted({int(uid) for uid in set(rows["uid"]) - set(verdict.dropped["uid"])})


@pytest.mark.parametrize(("easy", "base"), [(0.5, 0.2), (1.0, 0.0), (0.0, 0.0), (0.3, 0.7), (0.5, 1.0)])
def test_every_cluster_gives_its_quota_near_and_far(easy: float, base: float) -> None:
    rows, vectors = pool(400, 1)
    verdict = judged(rows, samples=100, clusters=5, easy=easy, base=base)
    assert verdict.fit is not None
    cluster, cosine = nearest_centroids(vectors, verdict.fit.arrays["centroids"])
    drawn = np.argsort(uniform_noise(rows["uid"].to_list(), 0, "deft base"))[: round(100 * base)]
    expected = set(drawn.tolist())
    quotas = [line["easy"] + line["hard"] for line in verdict.evidence["clusters"]]
    assert sum(quotas) == 100 - len(drawn) and max(quotas) - min(quotas) <= 1
    for number, quota in enumerate(quotas):
        mine = [row for row in np.flatnonzero(cluster == number).tolist() if row not in set(drawn.tolist())]
        mine.sort(key=lambda row: (-cosine[row], row))
        first = int(np.ceil(round(easy * quota, 9)))
        expected |= set(mine[:first]) | set(mine[len(mine) - (quota - first) :])
    assert kept(rows, verdict) == sorted(expected) and verdict.evidence["base"] == len(drawn)


def test_a_small_cluster_gives_all_and_the_others_make_up_for_it() -> None:
    cluster = np.array([0] * 2 + [1] * 50 + [2] * 50)
    cosine = np.linspace(0, 1, 102)
    found = core_set(cluster, cosine, np.linspace(0.9, 1, 102), (3, 0, 32), 0.5)
    assert found.quotas.tolist() == [2, 15, 15] and found.easy.tolist() == [1, 8, 8]
    assert (found.score > 0).sum() == 32
    assert np.flatnonzero(found.score[2:52]).tolist() == [*range(7), *range(42, 50)]


def test_the_pool_is_covered_better_than_by_chance() -> None:
    deft, chance = [], []
    for seed in range(5):
        rows, vectors = pool(600, 10 + seed)
        for found, rule in ((deft, Deft(samples=60, clusters=6, easy=0.2, base=0.2)), (chance, None)):
            order = np.argsort(uniform_noise(rows["uid"].to_list(), seed, "any"))[:60]
            chosen = order if rule is None else kept(rows, rule.judge(rows.lazy(), Context(seed)))
            found.append(1 - float(cosines(vectors, vectors[chosen]).max(axis=1).min()))
    print(f"coverage radius: deft {np.median(deft):.3f}, random {np.median(chance):.3f}")
    assert np.median(deft) < np.median(chance)


def test_a_smaller_budget_of_tokens_thins_all_parts_alike() -> None:
    cluster = np.repeat(np.arange(4), 100)
    found = core_set(cluster, np.linspace(0, 1, 400), np.linspace(0, 1, 400)[::-1], (4, 40, 200), 0.5)
    half = np.argsort(-found.score, kind="stable")[:100]
    assert found.base[half].sum() == pytest.approx(20, abs=1)
    assert np.bincount(cluster[half[~found.base[half]]]) == pytest.approx([20] * 4, abs=2)


def test_evidence_of_a_budget_of_tokens_is_of_the_rows_it_paid_for() -> None:
    """Captions are the longer the nearer the centroid, so fewer rows are paid for than mean lengths would buy."""
    rows, vectors = pool(400, 1)
    fit = judged(rows, samples=100, clusters=5).fit
    assert fit is not None
    _, cosine = nearest_centroids(vectors, fit.arrays["centroids"])
    lengths = np.where(cosine > np.median(cosine), 30, 3)
    worded = rows.with_columns(pl.Series("caption", ["word " * length for length in lengths.tolist()]))
    verdict = judged(worded, tokens=1000, clusters=5, easy=0.8)
    told = verdict.evidence
    assert sum(line["easy"] + line["hard"] for line in told["clusters"]) + told["base"] == told["budget"]["kept"]
    assert told["budget"]["kept"] == len(kept(rows, verdict)) < 1000 * 400 // lengths.sum()


def test_what_cannot_be_clustered_is_refused() -> None:
    rows, _ = pool(20, 3)
    with pytest.raises(CuveeError, match="asked for 21 samples, and there are 20"):
        judged(rows, samples=21)
    zeros = rows.with_columns(pl.Series(IMAGE_EMBEDDING.name, [[0.0] * 16] * 20, pl.List(pl.Float16)))
    with pytest.raises(CuveeError, match="length zero"):
        judged(zeros, samples=2)
    with pytest.raises(ValidationError, match="less than or equal to 1"):
        Deft(samples=1, easy=1.5)


def test_more_clusters_than_rows() -> None:
    rows, _ = pool(7, 4)
    assert len(kept(rows, judged(rows, samples=3, clusters=50))) == 3

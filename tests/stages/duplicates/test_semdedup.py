from math import ceil, fsum
from typing import Literal

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from schemas.errors import CuveeError
from stages.clusters import fit_centroids, nearest_centroids
from stages.duplicates.semdedup import SemDeDup
from stages.fit import Fit
from stages.near_vectors import similarity
from stages.near_vectors.similarity import Rows, largest_earlier
from stages.rule import DROPPED_SCHEMA, Context, Verdict
from stages.vectors import cosines


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float16)


def planted(n: int, d: int, seed: int = 0) -> np.ndarray:
    """Random unit vectors around a few topics; a fifth are copies with noise of many sizes, some exact."""
    noise = np.random.Generator(np.random.Philox(seed))
    rows = noise.normal(size=(n, d)) + 2 * noise.normal(size=(20, d))[noise.integers(0, 20, n)]
    copies = noise.choice(n, n // 5, replace=False)
    sizes = noise.choice([0, 0.01, 0.1, 0.3], len(copies))[:, None]
    rows[copies] = rows[noise.integers(0, n, len(copies))] + sizes * noise.normal(size=(len(copies), d))
    return unit(rows)


def table(embeddings: np.ndarray | list[list[float] | None]) -> pl.DataFrame:
    if isinstance(embeddings, np.ndarray):
        lists = pl.Series(embeddings.astype(np.float32)).arr.to_list().cast(pl.List(pl.Float16))
    else:
        lists = pl.Series(embeddings, dtype=pl.List(pl.Float16))
    uids = [f"{number:06d}" for number in range(len(lists))]
    return pl.DataFrame({"uid": uids, "source": ["s"] * len(lists), "image_embedding": lists})


def judge(rule: SemDeDup, rows: pl.DataFrame, seed: int = 0) -> Verdict:
    verdict = rule.judge(rows.lazy(), Context(seed))
    assert dict(verdict.dropped.schema) == DROPPED_SCHEMA
    return verdict


def partners(verdict: Verdict) -> dict[int, int]:
    pairs = verdict.dropped.select("uid", "duplicate_of").iter_rows()
    return {int(uid): int(other) for uid, other in pairs}


def published(embeddings: np.ndarray, cluster: np.ndarray, centroids: np.ndarray, epsilon: float) -> dict[int, int]:
    """SemDeDup as published: far from the centroid first, upper triangle, drop what exceeds 1 - epsilon."""
    wide, dropped = embeddings.astype(np.float64), {}
    length = np.sqrt((wide**2).sum(axis=1))
    for number in np.unique(cluster):
        rows = np.flatnonzero(cluster == number)
        rows = rows[np.argsort(wide[rows] @ centroids[number].astype(np.float64) / length[rows], kind="stable")]
        earlier = np.triu(wide[rows] @ wide[rows].T / np.outer(length[rows], length[rows]), k=1)
        for place in np.flatnonzero(earlier.max(axis=0) > 1 - epsilon):
            dropped[int(rows[place])] = int(rows[earlier[:, place].argmax()])
    return dropped


@pytest.mark.parametrize("epsilon", [0.003, 0.07])
def test_twenty_thousand_rows_are_dropped_as_published(epsilon: float) -> None:
    embeddings = planted(20_000, 32)
    rows = table(embeddings)
    centroids = fit_centroids(embeddings, rows["uid"].to_list(), 100, 0, "semdedup")
    cluster, _ = nearest_centroids(embeddings, centroids)
    expected = published(embeddings, cluster, centroids, epsilon)
    verdict = judge(SemDeDup(epsilon=epsilon, clusters=100), rows)
    found = partners(verdict)
    assert 1_000 < len(expected) < 10_000
    assert found == expected
    assert set(verdict.dropped["reason"]) == {"semantic_duplicate"}


@given(st.integers(1, 40), st.integers(1, 12), st.integers(0, 5))
def test_blocks_change_no_bit(n: int, block: int, seed: int) -> None:
    embeddings = planted(max(n, 5), 8, seed)
    whole = largest_earlier(Rows(embeddings))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(similarity, "BLOCK_ROWS", block)
        cut = largest_earlier(Rows(embeddings))
    assert whole[0].tobytes() == cut[0].tobytes()
    assert whole[1].tolist() == cut[1].tolist()
    assert whole[0][0] == -np.inf and whole[1][0] == -1


def test_similarities_are_exact() -> None:
    embeddings = planted(60, 512)
    wide = embeddings.astype(np.float64)
    exact = np.array([[fsum(a * b) for b in wide] for a in wide])
    shuffled = np.random.default_rng(0).permutation(512)
    assert (wide @ wide.T == exact).all()
    assert (wide[:, shuffled] @ wide[:, shuffled].T == exact).all()
    assert (cosines(embeddings, embeddings) == cosines(embeddings[:, shuffled], embeddings[:, shuffled])).all()


@given(st.integers(5, 200), st.integers(1, 100).map(lambda i: i / 100))
def test_keep_leaves_exactly_that_fraction(n: int, keep: float) -> None:
    rows = table(planted(n, 6))
    try:
        verdict = judge(SemDeDup(keep=keep, clusters=1), rows)
    except CuveeError:
        assert ceil(round(keep * 100) * n / 100 - 1e-9) == 0
        raise
    assert n - len(verdict.dropped) == ceil(round(keep * 100) * n / 100 - 1e-9)


def test_keep_drops_the_most_similar_rows() -> None:
    rows = table(planted(2_000, 16))
    verdict = judge(SemDeDup(keep=0.9), rows)
    border = verdict.evidence["lowest_dropped_similarity"]
    again = judge(SemDeDup(epsilon=1 - np.nextafter(border, 0)), rows)
    assert again.dropped["uid"].to_list() == verdict.dropped["uid"].to_list()
    assert len(verdict.dropped) == 200


def test_of_equal_rows_the_smallest_uid_stays() -> None:
    rows = table(np.repeat(planted(5, 8)[:1], 6, axis=0))
    for order in ("hard", "easy"):
        assert partners(judge(SemDeDup(epsilon=0.01, order=order), rows)) == {row: 0 for row in range(1, 6)}
        assert partners(judge(SemDeDup(keep=0.5, clusters=1, order=order), rows)) == {row: 0 for row in (1, 2, 3)}


def test_order_decides_who_stays() -> None:
    # One cluster: three rows near each other, the middle one nearest to the centroid.
    angles = np.array([0.0, 0.05, 0.1])
    rows = table(unit(np.stack([np.cos(angles), np.sin(angles)], axis=1)))
    assert 1 in partners(judge(SemDeDup(epsilon=0.002, clusters=1, order="hard"), rows))
    assert partners(judge(SemDeDup(epsilon=0.002, clusters=1, order="easy"), rows)) == {0: 1, 2: 1}


def test_rows_in_another_order_make_no_difference_and_the_seed_may() -> None:
    rows = table(planted(1_000, 8))
    rule = SemDeDup(keep=0.8, order="random")
    first = judge(rule, rows)
    for shuffle in range(2):
        again = judge(rule, rows.sample(fraction=1, shuffle=True, seed=shuffle))
        assert again.dropped.equals(first.dropped) and again.evidence == first.evidence
    assert not judge(rule, rows, seed=1).dropped.equals(first.dropped)


def test_rows_without_an_embedding_stay() -> None:
    rows = table([[1.0, 0.0], None, [1.0, 0.0], None])
    assert partners(judge(SemDeDup(epsilon=0.1), rows)) == {2: 0}
    assert judge(SemDeDup(epsilon=0.1), rows.filter(pl.col("image_embedding").is_null())).dropped.is_empty()


def test_more_drops_than_neighbours_are_refused() -> None:
    rows = table([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]])
    with pytest.raises(CuveeError, match="means 2 drops, but only 0 rows"):
        judge(SemDeDup(keep=0.5, clusters=4), rows)


def test_broken_embeddings_are_refused() -> None:
    with pytest.raises(CuveeError, match=r"embeddings of \[2, 3\] numbers"):
        judge(SemDeDup(epsilon=0.1), table([[1.0, 0.0], [1.0, 0.0, 0.0]]))
    with pytest.raises(CuveeError, match="length zero"):
        judge(SemDeDup(epsilon=0.1), table([[1.0, 0.0], [0.0, 0.0]]))


@pytest.mark.parametrize("settings", [{}, {"keep": 0.5, "epsilon": 0.1}, {"keep": 0}, {"epsilon": 0}, {"epsilon": 1.5}])
def test_one_cut_is_named(settings: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        SemDeDup.model_validate(settings)


def pinned(rule: SemDeDup, rows: pl.DataFrame, fit: Fit | None) -> Verdict:
    verdict = rule.judge(rows.lazy(), Context(0, fit=fit))
    assert verdict.fit == fit
    return verdict


@pytest.mark.parametrize("order", ["hard", "easy", "random"])
@pytest.mark.parametrize("cut", [{"keep": 0.9}, {"keep": 1}, {"epsilon": 0.05}])
def test_pinned_centroids_and_cut_decide_as_they_did(
    order: Literal["hard", "easy", "random"], cut: dict[str, float]
) -> None:
    rows = table(planted(400, 8))
    rule = SemDeDup(order=order, **cut)
    fresh = judge(rule, rows)
    again = pinned(rule, rows, fresh.fit)
    assert again.dropped.equals(fresh.dropped) and again.evidence == fresh.evidence
    more = table(np.concatenate([planted(400, 8), planted(300, 8, seed=1)]))
    assert set(fresh.dropped["uid"]) <= set(pinned(rule, more, fresh.fit).dropped["uid"])


@given(st.integers(2, 60), st.integers(1, 99).map(lambda i: i / 100))
def test_a_pinned_cut_settles_ties_by_uid(n: int, keep: float) -> None:
    rows = table(unit(np.repeat(planted(10, 6)[:2], [n, 3], axis=0)))
    rule = SemDeDup(keep=max(keep, 0.5), clusters=1)
    fresh = judge(rule, rows)
    assert pinned(rule, rows, fresh.fit).dropped.equals(fresh.dropped)


def test_a_pin_needs_no_k_means(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, rule = table(planted(200, 8)), SemDeDup(keep=0.9)
    fresh = judge(rule, rows)
    monkeypatch.setattr("stages.near_vectors.neighbours.train_centroids", None)
    assert pinned(rule, rows, fresh.fit).dropped.equals(fresh.dropped)
    assert pinned(rule, rows.head(0), fresh.fit).dropped.is_empty()
    assert fresh.fit is not None and fresh.fit.arrays["centroids"].shape == (14, 8)

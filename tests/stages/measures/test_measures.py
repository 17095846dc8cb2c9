"""What a comparison measures, against definitions, brute force and POT."""

import numpy as np
import ot
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.errors import CuveeError
from stages.atoms import Atoms
from stages.measures.divergence import coverage, kl_divergence, smoothed_divergence
from stages.measures.overlap import chance, jaccard
from stages.measures.target_distance import target_distance
from stages.measures.vendi import moments, vendi_score

SEEDS = st.integers(0, 2**32 - 1)


def unit(rng: np.random.Generator, n: int, d: int) -> np.ndarray:
    rows = rng.normal(size=(n, d))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float16)


@given(SEEDS, st.integers(1, 5), st.integers(0, 40))
def test_jaccard_is_that_of_python_sets(seed, m, n):
    masks = np.random.default_rng(seed).random((m, n)) < 0.4
    sets = [set(np.flatnonzero(mask).tolist()) for mask in masks]
    expected = [[len(a & b) / len(a | b) if a | b else 1.0 for b in sets] for a in sets]
    assert jaccard(masks).tolist() == expected


def test_chance_is_what_random_sets_have_in_common():
    rng = np.random.default_rng(0)
    masks = np.zeros((40, 5000), bool)
    for mask in masks:
        mask[rng.choice(5000, 1000, replace=False)] = True
    found = jaccard(masks)[np.triu_indices(40, 1)]
    assert found.mean() == pytest.approx(chance(1000, 5000), abs=0.002)
    assert chance(5000, 5000) == 1.0


@given(SEEDS, st.integers(2, 60), st.integers(2, 12))
def test_vendi_is_the_papers_definition_on_the_full_kernel(seed, n, d):
    rows = unit(np.random.default_rng(seed), n, d).astype(np.float64)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    values = np.linalg.eigvalsh(rows @ rows.T / n)
    values = values[values > 1e-15]
    assert vendi_score(moments(rows)) == pytest.approx(np.exp(-(values * np.log(values)).sum()), rel=2e-3)


def test_vendi_counts_what_is_different():
    assert vendi_score(moments(np.tile([[0.6, 0.8, 0.0]], (50, 1)))) == pytest.approx(1.0)
    assert vendi_score(moments(np.eye(7))) == pytest.approx(7.0)
    assert vendi_score(moments(np.repeat(np.eye(7), 9, axis=0))) == pytest.approx(7.0)  # copies add nothing


@given(SEEDS, st.integers(1, 300), st.integers(0, 300))
def test_moments_of_parts_add_up_to_the_bit(seed, n, cut):
    rng = np.random.default_rng(seed)
    rows = unit(rng, n, 33)
    shuffled = rows[rng.permutation(n)]
    assert np.array_equal(moments(rows[:cut]) + moments(rows[cut:]), moments(shuffled))


def test_target_distance_is_pots_squared_wasserstein():
    rng = np.random.default_rng(3)
    points, target = rng.normal(size=(20, 5)), rng.normal(size=(8, 5))
    counts, weights = rng.integers(0, 9, 20), rng.dirichlet(np.ones(8))
    expected = ot.emd2(counts / counts.sum(), weights, ot.dist(points, target))
    assert target_distance(counts, points, Atoms(target, weights, 8.0, 0.0)) == pytest.approx(expected, rel=1e-12)
    assert target_distance(np.array([3, 1]), points[:2], Atoms(points[:2], np.array([0.75, 0.25]), 8.0, 0.0)) == 0


@given(SEEDS, st.integers(1, 50))
def test_divergence_is_zero_for_equals_and_positive_else(seed, buckets):
    one, other = np.random.default_rng(seed).integers(0, 9, (2, buckets))
    assert kl_divergence(one, one) == 0
    assert kl_divergence(one, other) >= -1e-15


@given(SEEDS, st.integers(2, 50))
def test_smoothed_divergence_is_the_definition_and_knows_no_length(seed, buckets):
    rng = np.random.default_rng(seed)
    pool = rng.integers(1, 9, buckets)
    chosen, target = rng.integers(0, pool + 1), rng.integers(0, 9, buckets)
    target[0] = 1
    p, b = target / target.sum(), pool / pool.sum()
    q = 0.9 * chosen / max(chosen.sum(), 1) + 0.1 * b
    expected = sum(x * np.log(x / y) for x, y in zip(p, q, strict=True) if x)
    assert smoothed_divergence(target, chosen, pool) == pytest.approx(expected, abs=1e-12)
    assert smoothed_divergence(target, 7 * chosen, pool) == pytest.approx(expected, abs=1e-12)
    assert expected <= smoothed_divergence(target, 0 * chosen, pool) + 1e-12
    assert smoothed_divergence(target, target, target) == pytest.approx(0, abs=1e-12)


def test_what_the_pool_lacks_counts_for_nobody():
    pool, target = np.array([5, 5, 0]), np.array([2, 1, 1])
    assert coverage(target, pool) == 0.75
    assert smoothed_divergence(target, pool, pool) == pytest.approx(
        smoothed_divergence(np.array([2, 1, 0]), pool, pool)
    )
    with pytest.raises(CuveeError, match="none of the target's n-grams"):
        smoothed_divergence(np.array([0, 0, 3]), pool, pool)

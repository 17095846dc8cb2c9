"""Proposals against brute force on the simplex, and against their own certificates."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.errors import CuveeError
from stages.mixture.proposer import Box, Limits, Metric, candidates, program, propose
from stages.mixture.proposer.box import divergence
from stages.mixture.proposer.certificate import lower_bound
from tests.stages.mixture.proposer.laws import LogLinear, Steps, Wells, best_of, random_program, simplex_grid

GRID = simplex_grid(1000)


@pytest.mark.parametrize("strength", [0.0, 0.05, 0.5])
@pytest.mark.parametrize("ceilings", [0, 2])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_three_sources_as_brute_force_finds_them(strength: float, ceilings: int, seed: int) -> None:
    problem = random_program(np.random.default_rng(seed), 3, strength, ceilings=ceilings)
    found, best = propose(problem), best_of(problem, GRID)
    assert found.value <= problem.value(best[None])[0] + 1e-6
    assert found.gap is not None and found.gap <= 1e-5  # what rounding to millionths costs
    assert np.abs(found.shares - best).max() <= 2e-3 or abs(found.value - problem.value(best[None])[0]) <= 1e-4
    assert (found.shares <= problem.box.upper).all() and (found.shares >= 0).all()
    assert problem.excess(found.shares[None]).max(initial=-1) <= 1e-6


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 12), st.sampled_from([0.0, 0.01, 0.3]), st.integers(0, 3))
def test_the_gap_is_small_and_the_bounds_hold(seed: int, size: int, strength: float, ceilings: int) -> None:
    rng = np.random.default_rng(seed)
    problem = random_program(rng, size, strength, ceilings=ceilings)
    found = propose(problem)
    assert found.gap is not None and found.gap <= 5e-5 * max(1, abs(found.value))  # mostly what rounding costs
    assert (found.shares <= problem.box.upper + 1e-15).all() and (found.shares >= problem.box.lower).all()
    assert found.shares.sum() == pytest.approx(1, abs=1e-12)
    others = np.stack([problem.box.nearest(point) for point in rng.dirichlet(np.ones(size), 200)])
    others = others[problem.excess(others).max(axis=1, initial=-1) <= 0]
    assert (problem.value(others) >= found.value - found.gap - 1e-9).all()
    anywhere = rng.dirichlet(np.ones(size))  # a certificate holds wherever it was taken
    assert lower_bound(problem, problem.box.nearest(anywhere)) <= found.value + 1e-9


def test_a_strong_prior_is_returned_to_and_a_weak_one_forgotten() -> None:
    law = LogLinear(0.0, 0.0, np.array([-2.0, 0.5, 1.0]))
    prior, box = np.array([0.2, 0.3, 0.5]), Box(np.zeros(3), np.ones(3))
    strong = propose(program([Metric("nll.a", law, 1.0)], box, prior, 1e4))
    assert strong.shares == pytest.approx(prior, abs=1e-3)
    assert propose(program([Metric("nll.a", law, 1.0)], box, prior, 0.0)).shares.tolist() == [1, 0, 0]
    tilted = propose(program([Metric("nll.a", law, 1.0)], box, prior, 0.5))
    slope = law.gradient(tilted.shares[None])[0] + 0.5 * (np.log(tilted.shares / prior) + 1)
    assert np.ptp(slope) < 1e-4  # stationary on the simplex


def test_one_source_alone_where_mixing_dilutes() -> None:
    """Two laws that both want the same source."""
    laws = [LogLinear(1.0, 0.0, np.array([1.0, -1.0, 0.0])), LogLinear(0.0, 0.0, np.array([0.5, -3.0, 0.2]))]
    metrics = [Metric(f"nll.{i}", law, 0.5) for i, law in enumerate(laws)]
    assert propose(program(metrics, Box(np.zeros(3), np.ones(3)), np.full(3, 1 / 3), 0.0)).shares.tolist() == [0, 1, 0]


def colliding(upper: list[float]) -> tuple[list[Metric], Box, Limits]:
    """Each metric falls with its own source; both are at their ceilings where each has half."""
    laws = [LogLinear(0.0, 0.0, np.array([-1.0, 0.0, 0.0])), LogLinear(0.0, 0.0, np.array([0.0, -1.0, 0.0]))]
    tops = [float(np.exp(-0.5))] * 2
    metrics = [Metric(f"nll.{name}", law, 0.5, 0.2, 0.0, top) for name, law, top in zip("ab", laws, tops, strict=True)]
    limits = Limits(("min_share: a", "", "min_share: c"), tuple(f"max_share: {name}" for name in "abc"))
    return metrics, Box(np.zeros(3), np.array(upper)), limits


def test_ceilings_that_collide_are_named() -> None:
    metrics, box, limits = colliding([0.4, 1.0, 1.0])
    with pytest.raises(CuveeError, match=r"`nll\.a` and max_share: a collide: the metric rises by at least 0\.319 of"):
        propose(program(metrics, box, np.full(3, 1 / 3), 0.0, None, limits))
    metrics, _, limits = colliding([1.0, 1.0, 1.0])
    box = Box(np.array([0.0, 0.0, 0.3]), np.ones(3))
    with pytest.raises(CuveeError, match=r"`nll\.[ab]` and `nll\.[ab]` collide where `min_share: c` is in the way"):
        propose(program(metrics, box, np.full(3, 1 / 3), 0.0, None, limits))
    metrics, box, limits = colliding([1.0, 1.0, 1.0])
    only = propose(program(metrics, box, np.full(3, 1 / 3), 0.0, None, limits))
    assert only.shares == pytest.approx([0.5, 0.5, 0.0], abs=1e-5)  # the one point that is left


def test_laws_with_several_valleys_find_the_deeper_one() -> None:
    law = Wells(np.array([[0.8, 0.1, 0.1], [0.1, 0.1, 0.8]]), np.array([1.0, 1.2]))
    problem = program([Metric("nll.a", law, 1.0)], Box(np.zeros(3), np.array([1, 1, 0.7])), np.full(3, 1 / 3), 0.01)
    found, best = propose(problem, count=4000), best_of(problem, GRID)
    assert found.gap is None and found.method.startswith("descent from")
    assert np.abs(found.shares - best).max() <= 2e-3
    assert found.value <= problem.value(best[None])[0] + 1e-6


def test_laws_in_steps_are_averaged() -> None:
    law = Steps(LogLinear(0.0, 0.0, np.array([-2.0, 1.0, 0.0])))
    problem = program([Metric("nll.a", law, 1.0)], Box(np.zeros(3), np.array([0.6, 1, 1])), np.full(3, 1 / 3), 0.0)
    found = propose(problem, count=5000)
    assert found.gap is None and found.method == "mean of the best 128 of 5000 simulated mixtures"
    assert found.shares[0] > 0.55 and found.shares[0] <= 0.6
    assert np.array_equal(found.shares, propose(problem, count=5000).shares)
    assert not np.array_equal(found.shares, propose(problem, seed=1, count=5000).shares)
    capped = program([Metric("nll.a", law, 1.0, ceiling=-9.0)], problem.box, np.full(3, 1 / 3), 0.0)
    with pytest.raises(CuveeError, match=r"none of 5000 simulated mixtures within the limits keeps `nll\.a` at"):
        propose(capped, count=5000)


def test_simulated_mixtures_lie_inside_and_everywhere() -> None:
    box = Box(np.array([0.1, 0, 0, 0]), np.array([1, 0.3, 1, 0.2]))
    points = candidates(box, np.array([0.7, 0.2, 0.05, 0.05]), 0, 20_000)
    assert points.shape == (20_000, 4) and np.abs(points.sum(axis=1) - 1).max() < 1e-9
    assert (points >= box.lower - 1e-12).all() and (points <= box.upper + 1e-12).all()
    assert points[:, 2].max() > 0.85 and points[:, 0].max() > 0.95 and points.mean(axis=0).min() > 0.03


def test_reuse_keeps_the_ratios_of_the_old_sources() -> None:
    rng = np.random.default_rng(5)
    law = LogLinear(0.0, 0.5, 2 * rng.normal(size=4))
    old = np.array([0.5, 0.3, 0.2, 0.0])
    basis = np.stack([old, np.eye(4)[3]], axis=1)
    prior, box = np.array([0.4, 0.3, 0.2, 0.1]), Box(np.zeros(4), np.array([0.45, 1, 1, 1]))
    for strength in (0.0, 0.1):
        problem = program([Metric("nll.a", law, 1.0)], box, prior, strength, basis)
        found = propose(problem)
        assert found.shares[:3] / found.shares[:3].sum() == pytest.approx(old[:3], abs=1e-9)
        line = np.linspace(0, 0.9, 9001)  # 0.9: where the first source meets its bound
        points = line[:, None] * old + (1 - line)[:, None] * np.eye(4)[3]
        values = law.predict(points) + strength * divergence(points, prior)
        assert found.value <= values.min() + 1e-7 and found.value >= values.min() - 1e-4
        assert found.gap is not None and found.gap < 1e-5
    with pytest.raises(CuveeError, match="with the ratios that are kept, min_share: d and max_share: d collide"):
        limits = Limits(("", "", "", "min_share: d"), ("", "", "", "max_share: d"))
        program([], Box(np.array([0, 0, 0, 0.5]), np.array([1, 1, 1, 0.4])), prior, 0.0, basis, limits)
    with pytest.raises(CuveeError, match="ratios that are kept, max_share: a and max_share: d collide; loosen one"):
        limits = Limits(("",) * 4, ("max_share: a", "", "", "max_share: d"))
        program([], Box(np.zeros(4), np.array([0.4, 1, 1, 0.1])), prior, 0.0, basis, limits)

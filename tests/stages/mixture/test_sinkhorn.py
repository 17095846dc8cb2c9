"""The debiased divergence: zero for equal sets, differentiated right, near the exact distance for small epsilon."""

from dataclasses import replace

import numpy as np
import ot
import pytest

from schemas.errors import CuveeError
from stages.mixture.optimal_transport import sinkhorn
from stages.mixture.optimal_transport.box import Box, divergence
from stages.mixture.optimal_transport.exponentiated import descend
from stages.mixture.optimal_transport.problem import Problem
from stages.mixture.optimal_transport.sinkhorn import Debiased, self_potential

EPSILON = 0.1


def costs_of(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    return np.square(left[:, None] - right).sum(axis=2)


def a_problem(seed: int, sources: int, atoms: int = 12, epsilon: float = EPSILON, target=None) -> Debiased:
    rng = np.random.default_rng(seed)
    points = np.concatenate([rng.normal(size=(atoms, 3)) + 0.7 * rng.normal(size=3) for _ in range(sources)])
    weights = np.concatenate([rng.dirichlet(np.ones(atoms)) for _ in range(sources)])
    wanted, nu = (rng.normal(size=(15, 3)), rng.dirichlet(np.ones(15))) if target is None else target(points, weights)
    cross = costs_of(points, wanted)
    unit = np.median(cross)
    problem = Problem(cross / unit, (atoms,) * sources, weights, nu, Box.free(sources), np.full(sources, 1 / sources))
    return Debiased(problem, costs_of(points, points) / unit, costs_of(wanted, wanted) / unit, epsilon)


def by_pot(debiased: Debiased, shares: np.ndarray) -> float:
    """The definition, with POT's plans: <c, P> + eps KL(P || a x b) each."""
    problem = debiased.problem
    mass = shares[problem.owners] * problem.weights

    def regularised(a, b, costs):
        plan = ot.sinkhorn(a, b, costs, debiased.epsilon, method="sinkhorn_log", numItermax=2_000, stopThr=1e-9)
        outer = np.outer(a, b)
        held = plan > 0
        return (plan * costs).sum() + debiased.epsilon * (plan[held] * np.log(plan[held] / outer[held])).sum()

    cross = regularised(mass, problem.target, problem.costs)
    own = regularised(mass, mass, debiased.within)
    return cross - (own + regularised(problem.target, problem.target, debiased.within_target)) / 2


def test_it_is_pots_divergence():
    debiased = a_problem(0, 3)
    shares = np.array([0.5, 0.2, 0.3])
    assert debiased.value(shares) == pytest.approx(by_pot(debiased, shares), abs=1e-6)


def test_it_is_nothing_between_equal_sets():
    shares = np.array([0.2, 0.5, 0.3])
    same = a_problem(1, 3, target=lambda points, weights: (points, np.repeat(shares, 12) * weights))
    assert abs(same.value(shares)) <= 1e-6
    assert same.value(np.array([0.5, 0.2, 0.3])) > 1e-4
    found = same.descend()
    assert found.value <= 2e-6 and found.shares == pytest.approx(shares, abs=0.05)


def test_its_gradient_is_that_of_finite_differences():
    debiased, shares = a_problem(2, 4), np.array([0.1, 0.4, 0.3, 0.2])
    _, gradient, _ = debiased._at(shares, sinkhorn._Start.of(debiased))
    for i in range(4):
        for j in range(4):
            move = 1e-4 * (np.eye(4)[j] - np.eye(4)[i])
            change = (debiased.value(shares + move) - debiased.value(shares - move)) / 2e-4
            assert gradient[j] - gradient[i] == pytest.approx(change, abs=1e-5)


@pytest.mark.parametrize("strength", [0.0, 0.05])
def test_no_shares_of_a_grid_are_better(strength):
    debiased = a_problem(3, 3)
    debiased = replace(debiased, problem=replace(debiased.problem, strength=strength))
    found, steps = debiased.descend(), 6
    prior = debiased.problem.prior
    for i in range(steps + 1):
        for j in range(steps + 1 - i):
            shares = np.array([i, j, steps - i - j]) / steps
            assert debiased.value(shares) >= found.value - found.gap - 1e-9
    assert found.value == pytest.approx(debiased.value(found.shares), abs=1e-9)
    assert strength * divergence(found.shares, prior) <= found.value


def test_limits_hold():
    debiased = a_problem(4, 3)
    free = debiased.descend()
    upper = np.maximum(0.9 * free.shares, 0.4)
    box = Box(np.full(3, 0.05), upper)
    found = replace(debiased, problem=replace(debiased.problem, box=box)).descend()
    assert (found.shares <= upper + 1e-12).all() and (found.shares >= 0.05 - 1e-12).all()
    assert found.value >= free.value - 1e-6


def test_a_small_epsilon_is_near_the_exact_distance():
    sharp = a_problem(5, 3, epsilon=0.01)
    shares = np.array([0.3, 0.3, 0.4])
    exact = ot.emd2(np.repeat(shares, 12) * sharp.problem.weights, sharp.problem.target, sharp.problem.costs)
    assert sharp.value(shares) == pytest.approx(exact, rel=0.05)
    assert sharp.descend().value == pytest.approx(descend(sharp.problem).value, rel=0.1)


def test_the_self_term_settles():
    rng = np.random.default_rng(6)
    points, mass = rng.normal(size=(30, 2)), rng.dirichlet(np.ones(30))
    f = self_potential(costs_of(points, points), mass, 0.2, np.zeros(30))
    plan = np.exp((f[:, None] + f - costs_of(points, points)) / 0.2) * np.outer(mass, mass)
    assert plan.sum(axis=1) == pytest.approx(mass, abs=1e-9)


def test_too_many_atoms_are_refused(monkeypatch):
    monkeypatch.setattr(sinkhorn, "MOST_ATOMS", 10)
    with pytest.raises(CuveeError, match=r"36 source atoms needs 36 x 36 costs, expected at most 10 atoms"):
        a_problem(0, 3)

"""Quasi-Newton steps on few arcs against the joint linear program and against Newton's method."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from stages.mixture.optimal_transport import exponentiated, quasi_newton
from stages.mixture.optimal_transport.box import Box
from stages.mixture.optimal_transport.few_arcs import few, joined
from stages.mixture.optimal_transport.many_atoms import descend_many, next_pull
from stages.mixture.optimal_transport.problem import Problem, cheapest
from stages.mixture.optimal_transport.quasi_newton import Dual
from stages.mixture.optimal_transport.smoothed import Smoothed, near
from tests.stages.mixture.test_exponentiated import a_box, problem
from tests.stages.mixture.test_program import a_case, joint_program


def wide(sources: int = 6, atoms: int = 80, seed: int = 0) -> Problem:
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(sources, 8))
    points = np.repeat(centres, atoms, axis=0) + 0.7 * rng.normal(size=(sources * atoms, 8))
    target = np.repeat(centres[:2], atoms // 2, axis=0) + 0.7 * rng.normal(size=(atoms, 8))
    costs = np.square(points[:, None] - target).sum(axis=2)
    weights = np.concatenate([rng.dirichlet(np.ones(atoms)) for _ in range(sources)])
    even = np.full(sources, 1 / sources)
    sizes, nu = (atoms,) * sources, rng.dirichlet(np.ones(atoms))
    return Problem(costs / np.median(costs), sizes, weights, nu, Box.free(sources), even)


@pytest.mark.parametrize(("seed", "sources", "limited"), [(0, 3, False), (2, 8, False), (1, 5, True)])
def test_agrees_with_the_linear_program(seed: int, sources: int, limited: bool) -> None:
    case = a_case(seed, sources)
    box = a_box(seed, sources) if limited else Box.free(sources)
    found = descend_many(problem(case, box), None, 1e-3)
    exact = joint_program(case, box.upper, box.lower)
    assert exact * (1 - 1e-9) <= found.value <= exact * (1 + 1e-3)
    assert found.value - found.gap <= exact * (1 + 1e-9)
    assert (found.shares >= box.lower - 1e-12).all() and (found.shares <= box.upper + 1e-12).all()


@pytest.mark.parametrize("strength", [0.0, 0.05])
def test_agrees_with_newtons_method(strength: float, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = wide(4, 40)
    prior = np.array([0.4, 0.2, 0.2, 0.2])
    asked = Problem(plain.costs, plain.sizes, plain.weights, plain.target, plain.box, prior, strength)
    newton = exponentiated.descend(asked)
    monkeypatch.setattr(exponentiated, "MANY", 0)
    found = exponentiated.descend(asked, tolerance=5e-4)
    assert found.value == pytest.approx(newton.value, rel=6e-4)
    assert found.value - found.gap <= newton.value
    again = exponentiated.descend(asked, tolerance=5e-4)
    assert (again.shares == found.shares).all() and again.value == found.value
    assert exponentiated.descend(asked, warm=found, tolerance=2e-3).value == pytest.approx(newton.value, rel=2e-3)


@pytest.mark.parametrize(("eps", "exact", "shared"), [(0.05, False, 2**17), (0.05, True, 10), (5e-5, True, 10)])
def test_the_dual_is_that_of_newtons_method_and_its_slope_is_right(
    eps: float, exact: bool, shared: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quasi_newton, "_SHARED", shared)
    monkeypatch.setattr(quasi_newton, "_EXACT", 1.0 if exact else 0.0)
    asked = wide(3, 20)
    g = np.random.default_rng(5).normal(size=20) * eps
    arcs, pull = near(asked.costs, g, np.inf), next_pull(asked.prior, asked.box, asked.prior, 0.1, eps)
    dual = Dual(arcs, asked.owners, asked.weights, asked.target, eps, pull)
    assert len(dual.rows) == (2 if shared == 10 else 1)
    smooth = Smoothed(arcs, asked.owners, asked.weights, asked.target, eps, asked.box, pull)
    with ThreadPoolExecutor(2) as threads:
        for far in (0.0, 0.1, 900 * eps):  # the last is out of a float's range unless the tops are taken anew
            there = g + far * (np.arange(20) == 3)
            fallen, slope = dual.fall(there, asked.box, threads)
            state = smooth.at(there)
            assert -fallen == pytest.approx(state.value, rel=1e-9 if exact else 1e-6)
            near_enough = {"rel": 1e-6, "abs": 1e-12} if exact else {"rel": 1e-4, "abs": 1e-7}
            assert slope == pytest.approx(state.marginal - asked.target, **near_enough)


def test_every_row_and_every_column_has_an_arc_and_the_near_ones_stay() -> None:
    asked = wide()
    g = np.random.default_rng(1).normal(size=80) * 0.1
    arcs = few(asked.costs, g, 3)
    assert set(arcs.rows) == set(range(480)) and set(arcs.columns) == set(range(80))
    assert 3 * 480 <= len(arcs.rows) <= 12 * 480
    left = asked.costs[arcs.rows, arcs.columns] - g[arcs.columns] - cheapest(asked.costs, g)[arcs.rows]
    assert np.bincount(arcs.rows[left <= 1e-12], minlength=480).min() == 1
    both = joined(asked.costs, arcs, few(asked.costs, g + 0.5, 3), g, np.inf)
    assert set(zip(arcs.rows, arcs.columns, strict=True)) <= set(zip(both.rows, both.columns, strict=True))
    assert (asked.costs[both.rows, both.columns] == both.costs).all()

"""The bounded simplex against general solvers."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog, minimize

from stages.mixture.proposer.box import GRID, Box, divergence


def random_box(rng: np.random.Generator, size: int) -> Box:
    inside = rng.dirichlet(np.ones(size))
    lower = inside * rng.uniform(0, 1, size) * (rng.uniform(size=size) < 0.5)
    upper = np.minimum(1, inside + rng.exponential(0.2, size))
    return Box(lower, upper)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 7))
def test_nearest_lowest_and_tilted_are_optimal(seed: int, size: int) -> None:
    rng = np.random.default_rng(seed)
    box, costs, point = random_box(rng, size), rng.normal(size=size), rng.normal(size=size)
    near = box.nearest(point)
    assert near.sum() == pytest.approx(1, abs=1e-12)
    assert (near >= box.lower - 1e-15).all() and (near <= box.upper + 1e-15).all()
    assert (near - point) @ (box.lowest(near - point) - near) >= -1e-9  # no direction goes on downhill
    bounds = list(zip(box.lower, box.upper, strict=True))
    program = linprog(costs, A_eq=np.ones((1, size)), b_eq=[1], bounds=bounds)
    assert costs @ box.lowest(costs) == pytest.approx(program.fun, abs=1e-9)
    assert box.tilted(costs, np.ones(size), 0.0) == pytest.approx(program.fun, abs=1e-9)


def test_tilted_is_the_minimum_with_a_prior() -> None:
    rng = np.random.default_rng(3)
    for size in (2, 4, 6):
        box, costs, prior = random_box(rng, size), rng.normal(size=size), rng.dirichlet(np.ones(size))
        bounds = list(zip(box.lower, box.upper, strict=True))
        found = minimize(
            lambda p, c=costs, q=prior: c @ p + 0.3 * divergence(np.maximum(p, 1e-300), q),
            box.nearest(prior),
            method="SLSQP",
            bounds=bounds,
            constraints={"type": "eq", "fun": lambda p: p.sum() - 1},
            options={"ftol": 1e-13, "maxiter": 500},
        )
        assert box.tilted(costs, prior, 0.3) == pytest.approx(found.fun, abs=1e-7)
        assert box.tilted(costs, prior, 0.3) <= found.fun + 1e-9


def test_a_source_without_a_prior_stays_out() -> None:
    box = Box(np.zeros(3), np.array([1.0, 1.0, 0.0]))
    bound = box.tilted(np.array([1.0, 1.0, -9.0]), np.array([0.5, 0.5, 0.0]), 1.0)
    assert bound == pytest.approx(1.0, abs=1e-9)
    assert divergence(np.array([0.5, 0.5, 0.0]), np.array([0.5, 0.5, 0.0])) == 0
    assert divergence(np.array([0.5, 0.5]), np.array([1.0, 0.0])) == np.inf


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 7))
def test_rounding_stays_inside_and_close(seed: int, size: int) -> None:
    rng = np.random.default_rng(seed)
    loose = random_box(rng, size)
    box = Box(np.floor(loose.lower * 1000) / 1000, np.minimum(1, np.ceil(loose.upper * 1000) / 1000))
    point = box.nearest(rng.normal(size=size))
    grid = box.rounded(point)
    assert (grid * GRID).round().sum() == GRID and np.abs(grid - point).max() <= 2 / GRID
    assert (grid >= box.lower).all() and (grid <= box.upper).all()


def test_bounds_off_the_grid_leave_the_point_as_it_is() -> None:
    third = np.full(3, 1 / 3)
    assert Box(third, third).rounded(third) is third
    assert Box(np.zeros(3), np.ones(3)).rounded(third).tolist() == [0.333334, 0.333333, 0.333333]

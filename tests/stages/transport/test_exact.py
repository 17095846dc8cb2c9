"""Transports on some arcs against those on all of them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.transport.exact import corner, solve, value_on_arcs


@given(st.integers(1, 7), st.integers(1, 7), st.integers(0, 1000))
def test_the_corner_plan_moves_everything_on_its_arcs(n: int, m: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    mass, wanted = rng.dirichlet(np.ones(n)), rng.dirichlet(np.ones(m))
    arcs = corner(mass, wanted)
    assert len(arcs) <= n + m - 1
    left, missing = mass.copy(), wanted.copy()
    for row, column in zip(*np.divmod(arcs, m), strict=True):
        moved = min(left[row], missing[column])
        left[row] -= moved
        missing[column] -= moved
    assert left.max() < 1e-12 and missing.max() < 1e-12


def test_all_arcs_give_the_optimum_and_few_never_less() -> None:
    rng = np.random.default_rng(3)
    mass, wanted, costs = rng.dirichlet(np.ones(12)), rng.dirichlet(np.ones(9)), rng.random((12, 9))
    start = (costs.min(axis=1), np.zeros(9))
    exact = solve(mass, wanted, costs)
    every = np.arange(108)
    assert value_on_arcs(mass, wanted, every, costs.ravel(), start) == pytest.approx(exact.value, rel=1e-12)
    few = np.union1d(corner(mass, wanted), every[costs.ravel() < 0.1])
    rows, columns = np.divmod(few, 9)
    assert value_on_arcs(mass, wanted, few, costs[rows, columns], start) >= exact.value

"""Transports and potentials against POT, and against a general linear program."""

import numpy as np
import pytest
from scipy.optimize import linprog

from stages.transport.distances import squared_distances
from stages.transport.duals import coprime, transport
from tests.stages.vectors import unit


def linear_program(costs: np.ndarray, mass: np.ndarray) -> float:
    n, m = costs.shape
    rows = np.kron(np.eye(n), np.ones(m))
    columns = np.kron(np.ones(n), np.eye(m))
    bounds = np.concatenate([mass, np.full(m, 1 / m)])
    return float(linprog(costs.ravel(), A_eq=np.vstack([rows, columns]), b_eq=bounds).fun)


@pytest.mark.parametrize("seed", range(4))
def test_value_and_duality(seed):
    costs = squared_distances(unit(17, 6, seed), unit(9, 6, seed + 100))
    mass = np.random.default_rng(seed).dirichlet(np.ones(17))
    found = transport(costs, mass)
    assert found.value == pytest.approx(linear_program(costs, mass), rel=1e-9)
    assert found.rows @ mass + found.atoms.mean() == pytest.approx(found.value, abs=1e-9)
    assert (found.rows[:, None] + found.atoms <= costs + 1e-12).all()


@pytest.mark.parametrize(("n", "m"), [(300, 97), (97, 300), (499, 500), (1, 5), (5, 1)])
def test_equals_pot(n, m):
    import ot

    costs = squared_distances(unit(n, 16, n), unit(m, 16, m + 1000))
    _, log = ot.emd(np.full(n, 1 / n), np.full(m, 1 / m), costs, log=True)
    found = transport(costs)
    assert found.value == pytest.approx(log["cost"], rel=1e-9)
    shift = log["v"].mean()
    assert found.atoms == pytest.approx(log["v"] - shift, abs=1e-9)
    assert found.rows == pytest.approx(log["u"] + shift, abs=1e-6)


def test_no_common_divisor():
    assert [coprime(n, 12) for n in (12, 11, 10, 9, 1)] == [11, 11, 7, 7, 1]
    assert coprime(7, 1) == 7

"""The program against other solvers: HiGHS certifies every solution row by row, SLSQP finds the same one."""

import numpy as np
import pytest
from scipy.optimize import linprog, minimize

from stages.target.m4.attributes import Bits, Patterns, biases, patterns
from stages.target.m4.program import Doubles, Moments, moments, most_rows, solve, weights

Bounds = tuple[float, float]


def drawn(rows: int, sensitive: int, labels: int, seed: int) -> Bits:
    """(n, k + r) attributes with a known bias: labels go with some sensitive attribute or against it."""
    noise = np.random.default_rng(seed)
    s = noise.random((rows, sensitive)) < noise.uniform(0.2, 0.8, sensitive)
    shares = noise.uniform(0.1, 0.9, (labels, 2))
    y = [noise.random(rows) < np.where(s[:, noise.integers(sensitive)], high, low) for high, low in shares]
    return np.concatenate([s, np.stack(y, axis=1)], axis=1)


def bounded(bits: Bits, sensitive: int, bounds: Bounds, share: float = 0.5) -> tuple[Patterns, Moments]:
    found, _ = patterns(bits, sensitive)
    means = found.rows @ found.labels / len(bits)
    shares = np.full(sensitive, share)
    return found, moments(found.sensitive.astype(float), found.labels.astype(float), shares, means, bounds)


def row_constraints(bits: Bits, sensitive: int, bounds: Bounds) -> tuple[Doubles, Doubles]:
    """(m, n) moments of every row and their tolerances, written out from the paper's sums."""
    s, y = bits[:, :sensitive].astype(float), bits[:, sensitive:].astype(float)
    first = [s[:, k] - 0.5 for k in range(sensitive)]
    second = [(s[:, k] - 0.5) * (y[:, r] - y[:, r].mean()) for k in range(sensitive) for r in range(y.shape[1])]
    return np.stack(first + second), np.array([bounds[0]] * len(first) + [bounds[1] / 4] * len(second))


@pytest.mark.parametrize("bounds", [(0.0, 0.0), (0.0, 0.01), (0.01, 0.01), (0.05, 0.2)])
@pytest.mark.parametrize(("sensitive", "labels", "seed"), [(1, 1, 0), (2, 3, 1), (1, 6, 2)])
def test_a_linear_program_over_2000_rows_finds_no_descent(
    sensitive: int, labels: int, seed: int, bounds: Bounds
) -> None:
    """q minimises a convex f iff no feasible p has grad f(q) (p - q) < 0; the program over p is HiGHS's."""
    bits = drawn(2000, sensitive, labels, seed)
    found, constraints = bounded(bits, sensitive, bounds)
    number = patterns(bits, sensitive)[1]
    most = most_rows(found.rows.astype(float), constraints)
    matrix, tolerance = row_constraints(bits, sensitive, bounds)
    for eta in (0.1, 0.97 * most / 2000):
        q = weights(solve(found.rows.astype(float), constraints, eta), constraints, eta)[number]
        assert q.sum() == pytest.approx(2000 * eta, abs=1e-6) and (q >= 0).all() and (q <= 1).all()
        assert (np.abs(matrix @ q) <= tolerance * q.sum() + 1e-6).all()
        limit = tolerance * 2000 * eta + 1e-6
        best = linprog(
            q - eta,
            np.concatenate([matrix, -matrix]),
            np.concatenate([limit, limit]),
            np.ones((1, 2000)),
            [2000 * eta],
            bounds=(0, 1),
        )
        assert best.status == 0 and (q - eta) @ (best.x - q) >= -1e-5


@pytest.mark.parametrize("bounds", [(0.0, 0.01), (0.02, 0.01)])
@pytest.mark.parametrize("seed", range(3))
def test_equals_what_slsqp_finds(seed: int, bounds: Bounds) -> None:
    bits = drawn(2000, 1, 3, seed)
    found, constraints = bounded(bits, 1, bounds)
    mass = found.rows / 2000
    eta = 0.8 * most_rows(found.rows.astype(float), constraints) / 2000
    ours = weights(solve(found.rows.astype(float), constraints, eta), constraints, eta)
    sides = [constraints.values * mass, -constraints.values * mass]
    other = minimize(
        lambda q: float(mass @ (q - eta) ** 2),
        np.full(len(mass), eta),
        jac=lambda q: 2 * mass * (q - eta),
        bounds=[(0, 1)] * len(mass),
        constraints=[
            {"type": "eq", "fun": lambda q: mass @ q - eta},
            *({"type": "ineq", "fun": lambda q, side=side: constraints.tolerance * eta - side @ q} for side in sides),
        ],
        method="SLSQP",
        options={"ftol": 1e-15, "maxiter": 1000},
    )
    assert other.fun == pytest.approx(float(mass @ (ours - eta) ** 2), abs=1e-8)
    assert np.abs(other.x - ours).max() < 1e-3


@pytest.mark.parametrize("seed", range(40))
def test_rare_attributes_up_to_the_last_row_that_there_is(seed: int) -> None:
    """Patterns of a few rows are at 0 or 1 almost everywhere, where the dual is straight."""
    noise = np.random.default_rng(seed)
    s = noise.random((20_000, 3)) < 10 ** noise.uniform(-4, -1, 3)
    y = noise.random((20_000, 3)) < np.clip(10 ** noise.uniform(-3, -0.5, 3) + 0.2 * s.sum(axis=1)[:, None], 0, 1)
    found, _ = patterns(np.concatenate([s, y], axis=1), 3)
    rows = found.rows.astype(float)
    shares, means = rows @ found.sensitive / 20_000, rows @ found.labels / 20_000
    constraints = moments(found.sensitive.astype(float), found.labels.astype(float), shares, means, (0.0, 0.005))
    most = int(most_rows(rows, constraints))
    for wanted in {most // 3, most - 1, most} - {0, -1}:
        q = weights(solve(rows, constraints, wanted / 20_000), constraints, wanted / 20_000)
        assert rows @ q == pytest.approx(wanted, abs=1e-3)
        assert (np.abs(constraints.values @ (rows * q)) <= constraints.tolerance * wanted + 1e-3).all()


def test_the_most_rows_are_those_of_the_program_over_rows() -> None:
    bits = drawn(2000, 2, 2, 5)
    found, constraints = bounded(bits, 2, (0.01, 0.01))
    matrix, tolerance = row_constraints(bits, 2, (0.01, 0.01))
    both = np.concatenate([matrix - tolerance[:, None], -matrix - tolerance[:, None]])
    best = linprog(-np.ones(2000), both, np.zeros(len(both)), bounds=(0, 1))
    assert most_rows(found.rows.astype(float), constraints) == pytest.approx(-best.fun)
    assert 0 < -best.fun < 2000


def test_attributes_that_say_the_same_do_no_harm() -> None:
    bits = drawn(3000, 1, 2, 6)
    twice = np.concatenate([bits[:, :1], ~bits[:, :1], bits[:, 1:], bits[:, 1:2]], axis=1)
    eta = 0.2
    found = []
    for columns, sensitive in ((bits, 1), (twice, 2)):
        patterns_, constraints = bounded(columns, sensitive, (0.0, 0.01))
        q = weights(solve(patterns_.rows.astype(float), constraints, eta), constraints, eta)
        found.append(q[patterns(columns, sensitive)[1]])
    assert found[0] == pytest.approx(found[1], abs=1e-9)


def test_biases_are_the_papers() -> None:
    bits = drawn(500, 2, 3, 7)
    found, number = patterns(bits, 2)
    s, y = bits[:, :2], bits[:, 2:]
    gaps = [abs(y[s[:, k], r].mean() - y[~s[:, k], r].mean()) for k in range(2) for r in range(3)]
    expected = float(np.abs(s.mean(axis=0) - 0.5).max()), float(max(gaps))
    assert biases(found.rows, found, np.full(2, 0.5)) == pytest.approx(expected)
    assert (found.sensitive[number] == s).all() and (found.labels[number] == y).all()
    nobody = found.rows * ~found.sensitive[:, 0]
    assert biases(nobody, found, np.full(2, 0.5))[1] == 1.0

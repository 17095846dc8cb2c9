"""The cutting planes against the joint program itself, a grid, exponentiated gradient and POT."""

from dataclasses import dataclass

import numpy as np
import ot
import pytest
import scipy.sparse as sparse
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from stages.mixture.optimal_transport.box import Box
from stages.mixture.optimal_transport.program import Masses, Potentials, minimise


@dataclass(frozen=True)
class Case:
    costs: np.ndarray
    sizes: tuple[int, ...]
    masses: Masses
    natural: np.ndarray

    @property
    def potentials(self) -> Potentials:
        return Potentials(self.costs, self.sizes, [], [])

    @property
    def free(self) -> np.ndarray:
        return np.ones(len(self.sizes))

    def mixed(self, shares):
        return np.repeat(shares, self.sizes) * self.masses.sources

    def exact(self, shares) -> float:
        return float(ot.emd2(self.mixed(shares), self.masses.target, self.costs))


def a_case(seed: int, sources: int, atoms: int = 30, spread: float = 0.4) -> Case:
    rng = np.random.default_rng(seed)
    sizes = tuple(int(size) for size in rng.integers(atoms // 2, atoms + 1, sources))
    points = np.concatenate([rng.normal(size=(size, 6)) + spread * rng.normal(size=6) for size in sizes])
    target = rng.normal(size=(atoms, 6))
    costs = np.square(points[:, None] - target).sum(axis=2)
    weights = np.concatenate([rng.dirichlet(np.ones(size)) for size in sizes])
    masses = Masses(weights, rng.dirichlet(np.ones(atoms)))
    return Case(costs / np.median(costs), sizes, masses, rng.dirichlet(np.full(sources, 3.0)))


def below(limits: np.ndarray) -> Box:
    return Box(np.zeros(len(limits)), limits)


def joint_program(case: Case, limits: np.ndarray, least: np.ndarray | float = 0.0) -> float:
    """The definition: one program over the plan and the shares, by HiGHS."""
    m, b, s = len(case.masses.sources), len(case.masses.target), len(case.sizes)
    owner = np.repeat(np.arange(s), case.sizes)
    weights = sparse.csc_matrix((case.masses.sources, (np.arange(m), owner)), (m, s))
    rows = sparse.bmat(
        [
            [sparse.kron(sparse.eye(m), np.ones((1, b))), -weights],
            [sparse.kron(np.ones((1, m)), sparse.eye(b)), None],
            [None, np.ones((1, s))],
        ]
    )
    result = linprog(
        np.concatenate([case.costs.ravel(), np.zeros(s)]),
        A_eq=rows.tocsc(),
        b_eq=np.concatenate([np.zeros(m), case.masses.target, [1.0]]),
        bounds=[(0, None)] * (m * b) + [*zip(np.zeros(s) + least, limits, strict=True)],
    )
    assert result.status == 0
    return float(result.fun)


def exponentiated_gradient(case: Case, steps: int) -> float:
    """The best value met when shares descend along dual potentials; an upper bound of the optimum."""
    shares, best = case.free / len(case.sizes), np.inf
    starts = np.cumsum((0, *case.sizes[:-1]))
    for step in range(steps):
        _, log = ot.emd(case.mixed(shares), case.masses.target, case.costs, log=True)
        best = min(best, log["cost"])
        f = (case.costs - log["v"]).min(axis=1)
        slope = np.add.reduceat(f * case.masses.sources, starts)
        shares = shares * np.exp(-20 * 0.985**step * (slope - slope.min()))
        shares = np.maximum(shares / shares.sum(), 1e-15)
        shares /= shares.sum()
    return best


@pytest.mark.parametrize("seed", range(20))
def test_reaches_the_joint_program_and_exponentiated_gradient(seed):
    case = a_case(seed, sources=3 + seed % 6)
    found = minimise(case.potentials, case.masses, Box.free(len(case.sizes)), case.natural)
    assert found.shares.min() >= 0 and found.shares.sum() == pytest.approx(1, abs=1e-12)
    assert found.value == pytest.approx(joint_program(case, case.free), rel=1e-7)
    assert found.value == pytest.approx(case.exact(found.shares), rel=1e-9)
    descended = exponentiated_gradient(case, steps=700)
    assert found.value - 2e-9 <= descended <= found.value * (1 + 1e-4)


@pytest.mark.parametrize("seed", range(8))
def test_reaches_the_joint_program_under_limits(seed):
    case = a_case(seed, sources=3 + seed % 4)
    limits = np.minimum(1.0, np.random.default_rng(seed).dirichlet(case.free) * 1.5)
    found = minimise(case.potentials, case.masses, below(limits), case.natural)
    assert (found.shares <= limits + 1e-9).all()
    assert found.value == pytest.approx(joint_program(case, limits), rel=1e-7)
    assert found.value >= minimise(case.potentials, case.masses, Box.free(len(case.sizes)), case.natural).value - 1e-9


@pytest.mark.parametrize("seed", range(4))
def test_no_point_of_a_grid_over_three_sources_is_better(seed):
    case = a_case(seed, sources=3, atoms=12)
    found = minimise(case.potentials, case.masses, Box.free(len(case.sizes)), case.natural)
    steps = 40
    values = {
        (i, j): case.exact(np.array([i, j, steps - i - j]) / steps)
        for i in range(steps + 1)
        for j in range(steps + 1 - i)
    }
    nearest = min(values, key=values.__getitem__)
    assert values[nearest] >= found.value - 1e-9
    assert values[nearest] <= found.value + 0.01
    assert np.abs(found.shares[:2] - np.array(nearest) / steps).max() <= 0.1


@pytest.mark.parametrize("order", [1, 2])
def test_the_distance_at_given_shares_is_pots(order):
    rng = np.random.default_rng(7)
    points, target = rng.normal(size=(500, 5)), rng.normal(size=(400, 5))
    costs = np.linalg.norm(points[:, None] - target, axis=2) ** order
    weights = np.concatenate([rng.dirichlet(np.ones(300)), rng.dirichlet(np.ones(200))])
    masses = Masses(weights, rng.dirichlet(np.ones(400)))
    for shares in (np.array([0.3, 0.7]), np.array([1.0, 0.0])):
        held = np.repeat(shares, (300, 200)) * weights
        exact = ot.emd2(held, masses.target, costs)
        assert Potentials(costs, (300, 200), [], []).distance(shares, masses) == pytest.approx(exact, rel=1e-9)


def test_potentials_bound_every_other_mixture_and_other_masses():
    case, other = a_case(3, sources=4), a_case(3, sources=4)
    potentials = case.potentials
    gone = case.masses.target.copy()
    gone[:10] = 0
    potentials.distance(np.array([0.5, 0.5, 0.0, 0.0]), Masses(case.masses.sources, gone / gone.sum()))
    assert (potentials.sources[0][:, None] + potentials.target[0] <= case.costs + 1e-12).all()
    rng = np.random.default_rng(0)
    for _ in range(20):
        shares = rng.dirichlet(np.ones(4))
        assert potentials.slopes(other.masses)[0] @ shares <= case.exact(shares) + 1e-12


def test_equal_sources_share_like_natural():
    case = a_case(5, sources=3)
    sizes = (case.sizes[0], case.sizes[0], *case.sizes[1:])
    twin = slice(0, case.sizes[0])
    doubled = Case(
        np.concatenate([case.costs[twin], case.costs]),
        sizes,
        Masses(np.concatenate([case.masses.sources[twin], case.masses.sources]), case.masses.target),
        np.array([0.1, 0.3, 0.25, 0.35]),
    )
    found = minimise(doubled.potentials, doubled.masses, Box.free(len(doubled.sizes)), doubled.natural)
    alone = minimise(case.potentials, case.masses, Box.free(len(case.sizes)), np.array([0.4, 0.25, 0.35]))
    assert alone.shares[0] > 0.05
    assert found.shares[0] + found.shares[1] == pytest.approx(alone.shares[0], abs=1e-6)
    assert found.shares[1] / found.shares[0] == pytest.approx(3, rel=1e-5)


def test_where_everything_ties_the_natural_shares_stand():
    case = a_case(1, sources=1)
    natural = np.array([0.2, 0.5, 0.3])
    masses = Masses(np.tile(case.masses.sources, 3), case.masses.target)
    potentials = Potentials(np.tile(case.costs, (3, 1)), case.sizes * 3, [], [])
    assert minimise(potentials, masses, Box.free(3), natural).shares == pytest.approx(natural, abs=1e-9)
    limits = np.array([1.0, 0.3, 1.0])
    assert minimise(potentials, masses, below(limits), natural).shares == pytest.approx([0.28, 0.3, 0.42], abs=1e-8)


def test_limits_that_leave_one_point():
    case = a_case(2, sources=3)
    limits = np.array([0.2, 0.5, 0.3])
    assert minimise(case.potentials, case.masses, below(limits), case.natural).shares == pytest.approx(limits)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 9), st.floats(1.0, 4.0), st.sampled_from([0.0, 0.1, 2.0]))
def test_shares_lie_on_the_simplex_below_the_limits(seed, sources, room, spread):
    case = a_case(seed, sources, atoms=8, spread=spread)
    limits = np.minimum(1.0, np.random.default_rng(seed).dirichlet(case.free) * room)
    if limits.sum() < 1:
        limits = case.free
    found = minimise(case.potentials, case.masses, below(limits), case.natural)
    assert found.shares.sum() == pytest.approx(1, abs=1e-12)
    assert (found.shares >= 0).all() and (found.shares <= limits + 1e-8).all()
    assert 0 <= found.gap <= 1e-8 * (1 + found.value)

"""Exponentiated gradient against the joint linear program, cutting planes and finite differences."""

from dataclasses import replace

import numpy as np
import ot
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.mixture.optimal_transport.box import Box, divergence, logarithms
from stages.mixture.optimal_transport.exponentiated import descend
from stages.mixture.optimal_transport.objective import Gradient, Program
from stages.mixture.optimal_transport.problem import Problem
from tests.stages.mixture.test_program import Case, a_case, joint_program

CASES = [(seed, 3 + seed % 6) for seed in range(20)]


def problem(case: Case, box: Box | None = None, strength: float = 0.0) -> Problem:
    masses = case.masses
    return Problem(
        case.costs,
        case.sizes,
        masses.sources,
        masses.target,
        box or Box.free(len(case.sizes)),
        case.natural,
        strength,
    )


def a_box(seed: int, sources: int) -> Box:
    rng = np.random.default_rng((seed, 7))
    upper = np.minimum(1.0, rng.dirichlet(np.ones(sources)) * 1.5)
    return Box(0.5 * upper * rng.dirichlet(np.ones(sources)), upper)


@pytest.mark.parametrize(("seed", "sources"), CASES)
def test_agrees_with_the_linear_program(seed, sources):
    case = a_case(seed, sources)
    found = descend(problem(case))
    exact = joint_program(case, case.free)
    assert found.shares.sum() == pytest.approx(1, abs=1e-12) and found.shares.min() >= 0
    assert exact * (1 - 1e-9) <= found.value <= exact * (1 + 1e-4)
    assert found.value - found.gap <= exact * (1 + 1e-9)
    assert case.exact(found.shares) == pytest.approx(exact, rel=1e-4)


@pytest.mark.parametrize(("seed", "sources"), CASES)
def test_agrees_with_the_linear_program_within_limits(seed, sources):
    case, box = a_case(seed, sources), a_box(seed, sources)
    found = descend(problem(case, box))
    exact = joint_program(case, box.upper, box.lower)
    assert (found.shares >= box.lower - 1e-12).all() and (found.shares <= box.upper + 1e-12).all()
    assert exact * (1 - 1e-9) <= found.value <= exact * (1 + 1e-4)
    cut = Program(case.potentials, case.masses, case.natural).best(box)
    assert cut.value == pytest.approx(exact, rel=1e-7)
    assert (cut.shares >= box.lower - 1e-9).all() and (cut.shares <= box.upper + 1e-9).all()


def test_a_prior_takes_over_as_its_strength_grows():
    case = a_case(4, 5)
    free, last = descend(problem(case)), np.inf
    assert descend(problem(case, strength=1e-9)).value == pytest.approx(free.value, rel=5e-5)
    for strength in (0.001, 0.01, 0.1, 1.0, 10.0):
        found = descend(problem(case, strength=strength))
        away = divergence(found.shares, case.natural)
        assert away <= last + 1e-6 and found.value >= free.value - 1e-6
        assert found.value == pytest.approx(case.exact(found.shares) + strength * away, rel=5e-5)
        last = away
    assert descend(problem(case, strength=1e4)).shares == pytest.approx(case.natural, abs=1e-4)


def test_no_shares_of_a_grid_are_better_with_a_prior_and_limits():
    case, strength = a_case(3, 3, atoms=12), 0.05
    box = Box(np.array([0.1, 0.0, 0.0]), np.array([1.0, 0.6, 0.5]))
    found = descend(problem(case, box, strength))
    steps = 40
    grid = [np.array([i, j, steps - i - j]) / steps for i in range(steps + 1) for j in range(steps + 1 - i)]
    inside = [p for p in grid if (p >= box.lower).all() and (p <= box.upper).all()]
    values = [case.exact(p) + strength * divergence(p, case.natural) for p in inside]
    assert min(values) >= found.value - found.gap - 1e-9
    assert min(values) <= found.value + 0.01
    assert np.abs(inside[int(np.argmin(values))] - found.shares).max() <= 0.05


def differences(case: Case, shares: np.ndarray, size: float) -> np.ndarray:
    """(S, S) mean of the one-sided differences of V when `size` moves from source i to source j."""
    found = np.zeros((len(shares), len(shares)))
    for i in range(len(shares)):
        for j in range(len(shares)):
            move = size * (np.eye(len(shares))[j] - np.eye(len(shares))[i])
            found[i, j] = (case.exact(shares + move) - case.exact(shares - move)) / (2 * size)
    return found


@pytest.mark.parametrize("seed", range(4))
def test_the_gradient_is_that_of_finite_differences(seed):
    case = a_case(seed, 4, atoms=40)
    shares = np.random.default_rng(seed).dirichlet(np.full(4, 5.0))
    slopes = descend(problem(case, Box.point(shares))).slopes
    assert slopes @ shares == pytest.approx(case.exact(shares), rel=5e-5)
    moved = slopes[None, :] - slopes[:, None]
    assert moved == pytest.approx(differences(case, shares, 1e-3), abs=0.03 * np.abs(moved).max())


@pytest.mark.parametrize("seed", range(4))
def test_at_the_optimum_what_a_source_buys_is_nothing_unless_a_limit_holds_it(seed):
    case, box = a_case(seed, 5), a_box(seed, 5)
    for found in (descend(problem(case, box)), Program(case.potentials, case.masses, case.natural).best(box)):
        level = found.slopes @ found.shares
        marginal = found.slopes - level
        held_up, held_down = found.shares >= box.upper - 1e-4, found.shares <= box.lower + 1e-4
        inside = ~held_up & ~held_down
        if inside.any():
            between = found.slopes[inside].mean()
            assert found.slopes[inside] == pytest.approx(np.full(inside.sum(), between), abs=2e-4)
            assert (found.slopes[held_up] <= between + 2e-4).all() and (found.slopes[held_down] >= between - 2e-4).all()
        assert found.shares @ marginal == pytest.approx(0, abs=1e-9)


def test_a_source_split_in_two_keeps_its_total():
    case = a_case(5, 3)
    rows = np.arange(case.sizes[0])
    halves = (rows[::2], rows[1::2])
    costs = np.concatenate([case.costs[halves[0]], case.costs[halves[1]], case.costs[case.sizes[0] :]])
    weights = [case.masses.sources[half] for half in halves]
    masses = replace(
        case.masses, sources=np.concatenate([*(w / w.sum() for w in weights), case.masses.sources[case.sizes[0] :]])
    )
    mass = [w.sum() for w in weights]
    natural = np.array([*(case.natural[0] * m for m in mass), *case.natural[1:]])
    split = Case(costs, (len(rows[::2]), len(rows[1::2]), *case.sizes[1:]), masses, natural)
    whole, parted = descend(problem(case)), descend(problem(split))
    assert parted.value <= whole.value * (1 + 1e-4)  # the halves may be drawn unequally: nothing is lost
    twin = Case(
        np.concatenate([case.costs[: case.sizes[0]], case.costs]),
        (case.sizes[0], *case.sizes),
        replace(case.masses, sources=np.concatenate([case.masses.sources[: case.sizes[0]], case.masses.sources])),
        np.array([case.natural[0] / 2, case.natural[0] / 2, *case.natural[1:]]),
    )
    doubled = descend(problem(twin))
    assert doubled.value == pytest.approx(whole.value, rel=1e-4)
    assert doubled.shares[0] == pytest.approx(doubled.shares[1], abs=1e-6)
    assert doubled.shares[:2].sum() == pytest.approx(whole.shares[0], abs=0.02)


def test_one_source_alone_may_be_the_answer():
    case = a_case(2, 4)
    masses = replace(case.masses, target=case.masses.sources[: case.sizes[0]])
    points = np.random.default_rng(0).normal(size=(sum(case.sizes), 6))
    costs = np.square(points[:, None] - points[: case.sizes[0]]).sum(axis=2)
    same = Case(costs / np.median(costs), case.sizes, masses, case.natural)
    assert descend(problem(same)).shares[0] == pytest.approx(1, abs=1e-3)
    assert Program(same.potentials, masses, case.natural).best(Box.free(4)).shares == pytest.approx(
        [1, 0, 0, 0], abs=1e-6
    )


def test_the_value_at_given_shares_is_exact_and_the_answer_does_not_depend_on_what_was_asked_before():
    case = a_case(6, 4)
    shares = np.array([0.1, 0.2, 0.3, 0.4])
    objective = Gradient(problem(case))
    before = objective.value(shares)
    first = objective.best(Box.free(4))
    assert (
        objective.value(shares) == before == pytest.approx(ot.emd2(case.mixed(shares), case.masses.target, case.costs))
    )
    assert (Gradient(problem(case)).best(Box.free(4)).shares == first.shares).all()
    again = objective.resampled(case.masses).best(Box.free(4))
    assert again.value == pytest.approx(first.value, rel=4e-5)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 9), st.floats(-300, 300))
def test_nearest_is_a_point_of_the_box_in_the_order_of_the_logs(seed, sources, spread):
    rng = np.random.default_rng(seed)
    upper = np.minimum(1.0, rng.dirichlet(np.ones(sources)) * 2 + 1e-3)
    upper = upper if upper.sum() >= 1 else np.ones(sources)
    box = Box(upper * rng.uniform(0, 1 / upper.sum(), sources), upper)
    logs = spread * rng.normal(size=sources)
    shares, free = box.nearest(logs)
    assert shares.sum() == pytest.approx(1, abs=1e-12)
    assert (shares >= box.lower - 1e-12).all() and (shares <= box.upper + 1e-12).all()
    if free.sum() > 1:
        scale = logarithms(shares)[free] - logs[free]
        assert np.ptp(scale) <= 1e-6 * (1 + abs(spread))
    lowest = box.lowest(logs)
    assert lowest.sum() == pytest.approx(1, abs=1e-12) and lowest @ logs <= shares @ logs + 1e-9 * (1 + abs(spread))

"""Designs against theory, brute force and chance: on the simplex, within the bounds, the same for the same seed."""

from itertools import combinations
from math import comb

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.errors import CuveeError
from stages.mixture.designs import DESIGNS, Region, design
from stages.mixture.designs.candidates import candidates, even_points
from stages.mixture.designs.d_optimal import DOptimal, _Variances, exchange, greedy, log_det, terms
from stages.mixture.designs.dirichlet import Dirichlet
from stages.mixture.designs.given import Given
from stages.mixture.designs.lattice import Lattice, lattice_points, points_within
from stages.mixture.designs.spread import farthest, smallest_distance

LETTERS = "abcdefghijklmnopqrstuvwxyz"


def names(size: int) -> list[str]:
    return list(LETTERS[:size])


def flat(size: int) -> np.ndarray:
    return np.full(size, 1 / size)


def rows(points: np.ndarray) -> set[tuple[float, ...]]:
    return {tuple(np.round(point, 9).tolist()) for point in points}


def test_the_lattice_is_scheffes() -> None:
    found = lattice_points(2, np.array([2, 2, 2])) / 2
    assert rows(found) == {(1, 0, 0), (0.5, 0.5, 0), (0.5, 0, 0.5), (0, 1, 0), (0, 0.5, 0.5), (0, 0, 1)}
    for size, divisions in ((3, 4), (4, 5), (5, 3)):
        points = lattice_points(divisions, np.full(size, divisions))
        assert len(points) == comb(size + divisions - 1, divisions) == points_within(divisions, np.ones(size))
        assert (points.sum(axis=1) == divisions).all() and len(rows(points)) == len(points)
    assert rows(design(Lattice(divisions=2), names(3), 6, flat(3), 0)) == rows(found)


@pytest.mark.parametrize("size", [2, 3, 4])
@pytest.mark.parametrize("divisions", [1, 3, 6])
def test_bounded_lattice_points_are_those_that_a_filter_leaves(size: int, divisions: int) -> None:
    upper = np.random.default_rng(size * divisions).uniform(0.3, 1.0, size)
    every = lattice_points(divisions, np.full(size, divisions))
    kept = every[(every / divisions <= upper + 1e-9).all(axis=1)]
    most = np.minimum(np.floor(divisions * upper + 1e-9), divisions).astype(int)
    assert np.array_equal(lattice_points(divisions, most), kept)
    assert points_within(divisions, upper) == len(kept)


def test_a_thinned_lattice_has_the_corners_and_the_smallest_denominator() -> None:
    found = design("lattice", names(4), 24, flat(4), 0)
    assert np.allclose(found * 4, np.round(found * 4)) and points_within(3, np.ones(4)) < 24 <= points_within(
        4, np.ones(4)
    )
    assert rows(np.eye(4)) <= rows(found) and rows(found[:4]) == rows(np.eye(4))


@pytest.mark.parametrize("size", [3, 4, 5])
def test_the_d_optimal_quadratic_design_of_as_many_mixtures_as_terms_is_the_lattice_of_halves(size: int) -> None:
    """Kiefer (1961): corners and midpoints of edges."""
    count = size * (size + 1) // 2
    found = design("d_optimal", names(size), count, flat(size), 3)
    assert rows(found) == rows(lattice_points(2, np.full(size, 2)) / 2)


def test_the_d_optimal_linear_design_of_as_many_mixtures_as_sources_is_each_alone() -> None:
    assert rows(design(DOptimal(model="linear"), names(6), 6, flat(6), 0)) == rows(np.eye(6))


@pytest.mark.parametrize("seed", range(5))
def test_exchange_comes_near_brute_force(seed: int) -> None:
    points = np.random.default_rng(seed).dirichlet(np.ones(3), 12)
    every = max(log_det(points[list(some)]) for some in combinations(range(12), 5))
    assert log_det(points[exchange(points, greedy(points, 5))]) >= every - 0.02


def test_the_determinant_grows_by_the_factor_that_an_exchange_promises() -> None:
    points = terms(np.random.default_rng(0).dirichlet(np.ones(3), 20), "quadratic")
    chosen, into = np.arange(8), 15
    inverse = np.linalg.inv(points[chosen].T @ points[chosen])
    v = points @ inverse @ points.T
    after = np.append(np.delete(chosen, 2), into)
    factor = (1 + v[into, into]) * (1 - v[2, 2]) + v[2, into] ** 2
    assert log_det(points[after]) - log_det(points[chosen]) == pytest.approx(np.log(factor))


def test_variances_after_exchanges_are_those_computed_afresh() -> None:
    points = terms(np.random.default_rng(0).dirichlet(np.ones(4), 60), "quadratic")
    chosen = np.arange(14)
    known = _Variances(points, chosen)
    for place, into in ((3, 40), (0, 51), (9, 33)):
        known.move(into, 1.0)
        known.move(int(chosen[place]), -1.0)
        chosen[place] = into
        known.across[place] = points @ (known.inverse @ points[into])
    afresh = _Variances(points, chosen)
    assert np.allclose(known.across, afresh.across) and np.allclose(known.variance, afresh.variance)


@pytest.mark.parametrize(("model", "count"), [("linear", 8), ("quadratic", 16)])
@pytest.mark.parametrize("upper", [None, np.array([1.0, 0.6, 0.45, 0.3])])
def test_d_optimal_beats_random_designs(model: str, count: int, upper: np.ndarray | None) -> None:
    found = log_det(terms(design(DOptimal(model=model), names(4), count, flat(4), 0, upper), model))
    region, noise = Region.of(names(4), flat(4), upper), np.random.default_rng(1)
    chance = [log_det(terms(region.within(noise.dirichlet(np.ones(4), count)), model)) for _ in range(200)]
    lattice = log_det(terms(design("lattice", names(4), count, flat(4), 0, upper), model))
    assert found > max(chance) + 1 and found > lattice


@pytest.mark.parametrize("upper", [None, np.array([1.0, 0.6, 0.45, 0.3])])
def test_space_filling_beats_random_designs_and_greedy_choice(upper: np.ndarray | None) -> None:
    found = design("space_filling", names(4), 20, flat(4), 0, upper)
    region, noise = Region.of(names(4), flat(4), upper), np.random.default_rng(1)
    chance = [smallest_distance(region.within(noise.dirichlet(np.ones(4), 20))) for _ in range(200)]
    points = candidates(region, 0)
    assert smallest_distance(found) > 2 * max(chance)
    assert smallest_distance(found) >= smallest_distance(points[farthest(points, 20, 0)]) - 1e-12
    assert np.allclose(found[0], flat(4))


def test_even_points_are_uniform_on_the_simplex() -> None:
    points = even_points(4, 0)
    assert np.allclose(points.sum(axis=1), 1) and np.allclose(points.mean(axis=0), 0.25, atol=0.01)
    # The share of one source in a uniform mixture is Beta(1, S - 1): P(p > t) = (1 - t)^(S - 1).
    for edge in (0.2, 0.5):
        assert np.mean(points[:, 0] > edge) == pytest.approx((1 - edge) ** 3, abs=0.02)


def test_dirichlet_draws_lie_around_the_tempered_prior() -> None:
    prior = np.array([0.81, 0.16, 0.03])
    found = design(Dirichlet(least_strength=3, most_strength=3), names(3), 4000, prior, 0)
    q = np.sqrt(prior) / np.sqrt(prior).sum()
    assert np.allclose(found[:2], [prior, flat(3)])
    assert np.allclose(found[2:].mean(axis=0), q, atol=0.015)
    assert np.allclose(found[2:].var(axis=0), q * (1 - q) / 4, atol=0.01)  # strength + 1


def test_weak_draws_are_nearly_one_source_and_strong_ones_are_not() -> None:
    weak, strong = (
        design(Dirichlet(least_strength=s, most_strength=s), names(5), 500, flat(5), 0)[2:].max(axis=1).mean()
        for s in (0.1, 5)
    )
    assert weak > 0.9 and strong < 0.6


@given(size=st.integers(2, 6), seed=st.integers(0, 10**6), data=st.data())
@settings(max_examples=25)
def test_every_design_stays_within_the_bounds_and_repeats_itself(size: int, seed: int, data: st.DataObject) -> None:
    noise = np.random.default_rng(seed)
    upper = np.minimum(noise.uniform(1.1, 2.5) * noise.dirichlet(np.full(size, 3.0)), 1)
    if upper.sum() < 1.02:
        return
    prior = noise.dirichlet(np.ones(size))
    count = size * (size + 1) // 2 + 2
    kind = data.draw(st.sampled_from(sorted(set(DESIGNS) - {"given"})))
    try:
        found = design(kind, names(size), count, prior, seed, upper)
    except CuveeError as error:
        assert any(character.isdigit() for character in str(error))
        return
    assert found.shape == (count, size) and (found >= -1e-9).all() and (found <= upper + 1e-9).all()
    assert np.allclose(found.sum(axis=1), 1) and len(rows(found)) == count
    assert np.array_equal(found, design(kind, names(size), count, prior, seed, upper))


def test_corners_are_those_of_the_cut_simplex() -> None:
    region = Region.of(names(3), flat(3), np.array([0.5, 0.7, 1.0]))
    expected = {(0.5, 0.5, 0), (0.5, 0, 0.5), (0.3, 0.7, 0), (0, 0.7, 0.3), (0, 0, 1)}
    assert rows(region.corners(0)) == expected
    many = Region.of(names(9), flat(9), np.full(9, 0.4))
    corners = many.corners(0)
    assert many.holds(corners).all() and (np.sort(corners, axis=1)[:, -3:] == [0.2, 0.4, 0.4]).all()


def test_what_a_bound_cuts_off_goes_to_the_others_in_proportion() -> None:
    region = Region.of(names(3), flat(3), np.array([0.4, 1.0, 1.0]))
    assert np.allclose(region.within(np.array([[0.7, 0.2, 0.1], [1.0, 0.0, 0.0]])), [[0.4, 0.4, 0.2], [0.4, 0.3, 0.3]])


@pytest.mark.parametrize(
    ("kind", "size", "count", "upper", "message"),
    [
        ("dirichlet", 1, 5, None, "nothing to mix: found 1 source"),
        ("dirichlet", 3, 5, [0.3, 0.3, 0.2], r"add up to 0\.8, less than 1 \(a 0\.3, b 0\.3, c 0\.2\)"),
        ("d_optimal", 4, 9, None, "of 4 sources needs at least 10 mixtures, found a count of 9"),
        ("lattice", 3, 1, None, "needs at least 2 mixtures, found a count of 1"),
        ("lattice", 3, 400, [0.34, 0.34, 0.34], "has 400 mixtures within the bounds; the most is"),
        ("dirichlet", 3, 5, [0.3, 0.3, 0.4], "found 1 different mixtures"),
        ("space_filling", 3, 5, [0.3, 0.3, 0.4], "leave 1 mixtures and 5"),
        ("d_optimal", 3, 7, [0.3, 0.3, 0.4], "leave 1 mixtures with 1 of 6 coefficients"),
        ("doptimal", 3, 7, None, "unknown design 'doptimal'; known: d_optimal"),
    ],
)
def test_what_cannot_be_designed_is_refused_with_numbers(
    kind: str, size: int, count: int, upper: list[float] | None, message: str
) -> None:
    with pytest.raises(CuveeError, match=message):
        design(kind, names(size), count, flat(size), 0, None if upper is None else np.array(upper))


def test_a_prior_off_the_simplex_is_refused() -> None:
    with pytest.raises(CuveeError, match="expected 2 shares that add up to 1"):
        design("dirichlet", names(2), 4, np.array([0.5, 0.6]), 0)


def test_given_mixtures_are_tried_as_they_are() -> None:
    asked = [{"a": 0.5, "b": 0.5}, {"c": 1.0}]
    found = design(Given(mixtures=asked), names(3), 2, flat(3), 0)
    assert found.tolist() == [[0.5, 0.5, 0.0], [0.0, 0.0, 1.0]]
    with pytest.raises(CuveeError, match="`count` is 3"):
        design(Given(mixtures=asked), names(3), 3, flat(3), 0)
    with pytest.raises(CuveeError, match="names source 'c'; there are a, b"):
        design(Given(mixtures=asked), names(2), 2, flat(2), 0)
    with pytest.raises(CuveeError, match="mixture 2 of design 'given' takes more"):
        design(Given(mixtures=asked), names(3), 2, flat(3), 0, np.array([1.0, 1.0, 0.6]))
    with pytest.raises(ValueError, match="mixture 1 has shares"):
        Given(mixtures=[{"a": 0.5, "b": 0.6}, {"c": 1.0}])

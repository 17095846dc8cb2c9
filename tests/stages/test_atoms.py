"""Quantisation: exact means, exact masses, one answer."""

import numpy as np
import pytest

from stages.atoms import PARTITIONS, ROWS_PER_ATOM, partitioned, quantise


def clusters(seed: int, per_cluster: int = 40):
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(6, 12)) * 4
    rows = (centres[:, None] + 0.1 * rng.normal(size=(6, per_cluster, 12))).reshape(-1, 12).astype(np.float32)
    weights = rng.uniform(0.5, 2.0, len(rows))
    return rows, weights, [f"row-{i:04d}" for i in range(len(rows))]


def test_rows_on_a_few_places_become_those_places_with_their_weight():
    rng = np.random.default_rng(0)
    places = rng.normal(size=(5, 12)).astype(np.float32)
    at, weights = rng.integers(0, 5, 400), rng.uniform(0.5, 2.0, 400)
    atoms = quantise(places[at], weights, [f"row-{i:04d}" for i in range(400)], 50, seed=3)
    place = np.square(atoms.points[:, None] - places).sum(axis=2).argmin(axis=1)
    assert atoms.points == pytest.approx(places[place].astype(np.float64), abs=1e-9)
    assert np.bincount(place, atoms.weights, 5) == pytest.approx(np.bincount(at, weights, 5) / weights.sum(), abs=1e-12)
    assert atoms.error == pytest.approx(0, abs=1e-12)


def test_the_mean_of_the_rows_is_kept():
    rows, weights, keys = clusters(0)
    atoms = quantise(rows, weights, keys, 12, seed=3)
    assert atoms.weights.sum() == pytest.approx(1) and (atoms.weights > 0).all()
    mean = np.average(rows.astype(np.float64), axis=0, weights=weights)
    assert atoms.weights @ atoms.points == pytest.approx(mean, abs=1e-12)


def test_the_error_is_the_spread_inside_the_atoms():
    rows, weights, keys = clusters(1)
    atoms = quantise(rows, weights, keys, 24, seed=0)
    total = np.average(np.square(rows - np.average(rows, axis=0, weights=weights)).sum(axis=1), weights=weights)
    between = atoms.weights @ np.square(atoms.points - atoms.weights @ atoms.points).sum(axis=1)
    assert atoms.error == pytest.approx(total - between, rel=1e-4)  # variance splits into within and between
    assert atoms.error < 0.3 * total


def test_same_input_and_seed_same_bits_another_seed_other_atoms():
    rows, weights, keys = clusters(2, per_cluster=700)
    first, again = (quantise(rows, weights, keys, 10, seed=5) for _ in range(2))
    other = quantise(rows, weights, keys, 10, seed=6)
    assert np.array_equal(first.points, again.points) and np.array_equal(first.weights, again.weights)
    assert not np.array_equal(first.points, other.points)


def test_an_atom_stands_for_several_rows():
    rows, weights, keys = clusters(3)
    assert len(quantise(rows, weights, keys, 1000, seed=0).weights) <= len(rows) // ROWS_PER_ATOM
    one = quantise(rows[:3], weights[:3], keys[:3], 64, seed=0)
    assert one.points[0] == pytest.approx(np.average(rows[:3], axis=0, weights=weights[:3]), abs=1e-6)
    assert one.weights.tolist() == [1.0]


def test_twins_leave_no_empty_atom():
    rows = np.ones((100, 4), np.float32)
    atoms = quantise(rows, np.ones(100), [str(i) for i in range(100)], 8, seed=0)
    assert (atoms.weights > 0).all() and atoms.weights.sum() == pytest.approx(1)
    assert atoms.error == pytest.approx(0, abs=1e-12)


def test_effective_rows_is_kishs():
    rows, _, keys = clusters(4)
    assert quantise(rows, np.full(len(rows), 7.0), keys, 8, seed=0).effective_rows == pytest.approx(len(rows))
    weights = np.ones(len(rows))
    weights[0] = len(rows) - 1
    expected = (2 * len(rows) - 2) ** 2 / (np.square(weights).sum())
    assert quantise(rows, weights, keys, 8, seed=0).effective_rows == pytest.approx(expected)


def test_few_rows_are_partitioned_several_times_within_the_atoms():
    rows, weights, keys = clusters(5)
    single = quantise(rows, weights, keys, 512, seed=0)
    for atoms, count in ((30, 1), (59, 1), (60, 2), (100, 3), (512, PARTITIONS)):
        found = partitioned(rows, weights, keys, atoms, seed=0)
        assert len(found.weights) <= atoms and found.weights.sum() == pytest.approx(1)
        assert found.points[: len(single.weights)] == pytest.approx(single.points)
        assert found.weights[: len(single.weights)] == pytest.approx(single.weights / count)
        mean = np.average(rows.astype(np.float64), axis=0, weights=weights)
        assert found.weights @ found.points == pytest.approx(mean, abs=1e-12)
        assert found.effective_rows == single.effective_rows
        assert found.error == pytest.approx(single.error, rel=0.2)


def test_each_partition_is_another_one():
    rows, weights, keys = clusters(6)
    found = partitioned(rows, weights, keys, 1000, seed=0)
    assert len(found.weights) == PARTITIONS * (len(rows) // ROWS_PER_ATOM)
    parts = np.split(found.points, PARTITIONS)
    assert not any(np.allclose(parts[0], part) for part in parts[1:])

"""The resampled weights have the moments of a bootstrap, the interval covers."""

import numpy as np
import pytest

from stages.atoms import Atoms
from stages.mixture.optimal_transport.bootstrap import intervals, resampled
from stages.mixture.optimal_transport.objective import Program
from stages.mixture.optimal_transport.program import Masses, Potentials


def atoms(points, weights, rows: float) -> Atoms:
    return Atoms(np.asarray(points, np.float64), np.asarray(weights, np.float64), rows, 0.0)


def test_resampled_weights_have_the_multinomials_moments():
    weights = np.array([0.5, 0.3, 0.15, 0.05])
    drawn = resampled(atoms(np.eye(4), weights, 400), "photos", 4000, seed=0)
    assert drawn.sum(axis=1) == pytest.approx(np.ones(4000))
    assert drawn.mean(axis=0) == pytest.approx(weights, abs=0.002)
    assert drawn.std(axis=0) == pytest.approx(np.sqrt(weights * (1 - weights) / 400), rel=0.06)


def test_a_replicate_without_rows_keeps_the_weights():
    drawn = resampled(atoms(np.eye(2), [0.25, 0.75], 0.01), "photos", 200, seed=0)
    assert (drawn.sum(axis=1) == 1).all() and (drawn == [0.25, 0.75]).all(axis=1).sum() > 150


def program(potentials: Potentials, target: Atoms) -> Program:
    return Program(potentials, Masses(np.ones(2), target.weights), np.array([0.5, 0.5]))


def far_apart(share: float, rows: float):
    """Two sources on two distant places; the target holds `share` of the first, so the optimum is `share`."""
    sources = {"a": atoms([[0.0]], [1.0], rows), "b": atoms([[10.0]], [1.0], rows)}
    target = atoms([[0.1], [10.1]], [share, 1 - share], rows)
    costs = np.array([[0.01, 102.01], [98.01, 0.01]])
    return intervals(program(Potentials(costs / 49, (1, 1), [], []), target), sources, target, 200, seed=1)


def test_the_interval_is_the_binomial_one_where_only_the_target_decides():
    low, high = far_apart(0.3, rows=500)[0]
    spread = 1.96 * np.sqrt(0.3 * 0.7 / 500)
    assert low < 0.3 < high
    assert high - low == pytest.approx(2 * spread, rel=0.25)
    wider = far_apart(0.3, rows=50)[0]
    assert wider[1] - wider[0] > 2 * (high - low)


def test_replicates_do_not_grow_the_given_potentials():
    potentials = Potentials(np.array([[1.0, 2.0], [2.0, 1.0]]), (1, 1), [], [])
    sources = {"a": atoms([[0.0]], [1.0], 9), "b": atoms([[1.0]], [1.0], 9)}
    target = atoms([[0.0], [1.0]], [0.5, 0.5], 9)
    intervals(program(potentials, target), sources, target, 20, seed=0)
    assert not potentials.sources and not potentials.target

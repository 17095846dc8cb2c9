"""Squared distances without rounding, and c-transforms that no block, thread or device can change."""

import os
import subprocess
import sys
from fractions import Fraction

import numpy as np
import pytest

import stages.transport.distances as module
from stages.transport.distances import c_transform, c_transform_on, squared_distances
from tests.stages.vectors import unit

ROWS, ATOMS, LEVELS = unit(700, 48, 1), unit(90, 48, 2), np.random.default_rng(3).normal(0, 0.1, 90)


def test_costs_are_the_rational_numbers_themselves():
    costs = squared_distances(ROWS[:5], ATOMS[:4])
    for i in range(5):
        for j in range(4):
            pairs = zip(ROWS[i].tolist(), ATOMS[j].tolist(), strict=True)
            assert Fraction(float(costs[i, j])) == sum((Fraction(x) - Fraction(y)) ** 2 for x, y in pairs)


def test_costs_of_joined_columns_are_averaged():
    other = unit(700, 48, 4)
    joined = squared_distances(np.concatenate([ROWS, other], 1), np.concatenate([ATOMS, other[:90]], 1), 2)
    expected = (squared_distances(ROWS, ATOMS) + squared_distances(other, other[:90])) / 2
    assert (joined == expected).all()


def test_the_transform_is_the_minimum():
    expected = (squared_distances(ROWS, ATOMS) - LEVELS).min(axis=1)
    assert (c_transform(ROWS, ATOMS, LEVELS) == expected).all()


@pytest.mark.parametrize("softness", [0.0, 0.05])
@pytest.mark.parametrize("block", [1, 7, 256])
def test_blocks_change_no_bit(monkeypatch, softness, block):
    expected = c_transform(ROWS, ATOMS, LEVELS, softness=softness)
    monkeypatch.setattr(module, "BLOCK_ROWS", block)
    assert c_transform(ROWS, ATOMS, LEVELS, softness=softness).tobytes() == expected.tobytes()


def test_another_library_gives_the_same_bits():
    for block in (1, 64, 10_000):
        assert (
            c_transform_on("cpu", ROWS, ATOMS, LEVELS, 3, block).tobytes()
            == c_transform(ROWS, ATOMS, LEVELS, 3).tobytes()
        )


def test_threads_change_no_bit():
    code = (
        "import numpy as np, hashlib; from stages.transport.distances import c_transform\n"
        "from tests.stages.vectors import unit\n"
        "found = c_transform(unit(3000, 64, 1), unit(500, 64, 2), np.linspace(-.1, .1, 500))\n"
        "print(hashlib.sha256(found.tobytes()).hexdigest())"
    )
    hashes = set()
    for threads in ("1", "2", "5"):
        environment = {**os.environ, "OPENBLAS_NUM_THREADS": threads, "OMP_NUM_THREADS": threads}
        hashes.add(
            subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, check=True).stdout
        )
    assert len(hashes) == 1


def test_softness_tends_to_the_minimum():
    sharp = c_transform(ROWS, ATOMS, LEVELS)
    for softness in (0.1, 0.01, 0.001):
        soft = c_transform(ROWS, ATOMS, LEVELS, softness=softness)
        assert (soft >= sharp - 1e-12).all() and (soft <= sharp + softness * np.log(len(ATOMS)) + 1e-12).all()

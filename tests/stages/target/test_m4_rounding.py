"""Whole rows: as many as there are to be, each amount rounded up or down, the moments close to those of the amounts."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.quotas import amounts, quotas
from stages.target.m4 import rounding
from stages.target.m4.rounding import balanced


def instance(seed: int, groups: int, total: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """(weights, sizes, moments, total) with a few rows in each group."""
    noise = np.random.Generator(np.random.Philox(seed))
    sizes = noise.integers(1, 6, groups)
    moments = noise.choice([-1.0, 0.5, 2.0], (3, groups))
    return sizes * noise.uniform(0.05, 1, groups), sizes, moments, min(total, int(sizes.sum()))


def squares(counts: np.ndarray, ideal: np.ndarray, moments: np.ndarray) -> float:
    return float(((moments @ (counts - ideal)) ** 2).sum())


@settings(deadline=None)
@given(st.integers(0, 1000), st.integers(1, 30), st.integers(0, 60), st.sampled_from([5, 2000]))
def test_counts_stay_whole_and_no_swap_is_left(seed: int, groups: int, total: int, most: int) -> None:
    weights, sizes, moments, total = instance(seed, groups, total)
    before, ideal = quotas(weights, sizes, total), amounts(weights, sizes, total)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rounding, "MOST_PATTERNS", most)
        after = balanced(before, ideal, moments)
    assert after.sum() == total and (after >= 0).all() and (after <= sizes).all()
    assert (np.abs(after - ideal) < 1 + 1e-9).all()
    reached = squares(after, ideal, moments)
    assert reached <= squares(before, ideal, moments) + 1e-9
    below = np.floor(ideal)
    for one in np.flatnonzero(after > below) if most > groups else ():
        for other in np.flatnonzero((after == below) & (ideal > below)):
            swapped = after.copy()
            swapped[[one, other]] += (-1, 1)
            assert squares(swapped, ideal, moments) > reached - 1e-6


def test_hundreds_of_patterns_hold_the_moments_of_a_small_set() -> None:
    for seed in range(5):
        weights, sizes, moments, total = instance(seed, 500, 500)
        before, ideal = quotas(weights, sizes, total), amounts(weights, sizes, total)
        after = balanced(before, ideal, moments)
        assert squares(after, ideal, moments) < 1 < 10 < squares(before, ideal, moments)
        assert np.array_equal(after, balanced(before, ideal, moments))


@pytest.mark.parametrize("share", [0.03, 0.2, 0.6])
def test_thousands_of_patterns_swap_wherever_the_border_lies(share: float) -> None:
    weights, sizes, moments, _ = instance(2, 8000, 0)
    total = int(share * weights.sum())
    before, ideal = quotas(weights, sizes, total), amounts(weights, sizes, total)
    assert squares(balanced(before, ideal, moments), ideal, moments) < 2 < 20 < squares(before, ideal, moments)

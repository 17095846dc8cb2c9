from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.errors import ContractError
from stages.quotas import places_within, quotas

GROUPS = st.lists(st.tuples(st.integers(0, 8), st.integers(0, 20)), min_size=1, max_size=12)


@given(GROUPS, st.data())
def test_counts_are_in_proportion_and_never_above_what_is_there(groups, data):
    weights, sizes = (np.array(values) for values in zip(*groups, strict=True))
    there = int(sizes[weights > 0].sum())
    total = data.draw(st.integers(0, there))
    found = quotas(weights.astype(float), sizes, total)
    assert found.sum() == total and (found >= 0).all() and (found <= sizes).all()
    assert not found[weights == 0].any()
    ideal = exact(weights.tolist(), sizes.tolist(), total)
    assert all(abs(int(count) - amount) < 1 for count, amount in zip(found, ideal, strict=True))


def exact(weights: list[int], sizes: list[int], total: int) -> list[Fraction]:
    """min(size, c weight) for the c at which they add up to `total`: between corners of that sum, a straight line."""
    groups = list(zip(weights, sizes, strict=True))
    corners = sorted({Fraction(0), *(Fraction(size, weight) for weight, size in groups if weight)})
    sums = [sum(min(size, unit * weight) for weight, size in groups) for unit in corners]
    above = next(place for place, amount in enumerate(sums) if amount >= total)
    if above == 0:
        unit = corners[0]
    else:
        rise = (corners[above] - corners[above - 1]) / (sums[above] - sums[above - 1])
        unit = corners[above - 1] + (total - sums[above - 1]) * rise
    return [min(Fraction(size), unit * weight) for weight, size in groups]


def test_equal_shares_and_remainders():
    assert quotas(np.ones(3), np.array([9, 9, 9]), 8).tolist() == [3, 3, 2]
    assert quotas(np.ones(3), np.array([1, 9, 9]), 8).tolist() == [1, 4, 3]
    assert quotas(np.array([0.5, 0.3, 0.2]), np.array([100, 100, 100]), 10).tolist() == [5, 3, 2]
    assert quotas(np.array([8.0, 1.0, 1.0]), np.array([4, 100, 100]), 10).tolist() == [4, 3, 3]
    assert quotas(np.ones(2), np.array([0, 5]), 5).tolist() == [0, 5]


def test_more_than_there_is_is_refused():
    with pytest.raises(ContractError, match="5 rows are to come from groups that have 4"):
        quotas(np.array([1.0, 0.0]), np.array([4, 9]), 5)


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 3)), max_size=30))
def test_places_in_a_group(rows):
    groups = np.array([group for group, _ in rows], np.int64)
    keys = np.array([key for _, key in rows], np.float64)
    expected = [
        sum((keys[other], other) < (keys[row], row) for other in range(len(rows)) if groups[other] == groups[row])
        for row in range(len(rows))
    ]
    assert places_within(groups, keys).tolist() == expected

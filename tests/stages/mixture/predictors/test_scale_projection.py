"""Projections in log N against the closed form, numpy's regression, and simulated noise."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.errors import CuveeError
from stages.mixture.predictors import scale_projection
from stages.mixture.predictors.scale_projection import amplification, line_weights

Doubles = npt.NDArray[np.float64]
MIXTURES = np.eye(3)


@dataclass(frozen=True)
class Known:
    """A law of known values at the corners and known errors."""

    at: tuple[float, float, float]
    off: float = 0.01
    convex: bool = True
    smooth: bool = True

    def predict(self, mixtures: Doubles) -> Doubles:
        return mixtures @ np.array(self.at)

    def error(self, mixtures: Doubles) -> Doubles:
        return np.full(len(mixtures), self.off)

    def interval(self, mixtures: Doubles) -> Doubles:
        return self.predict(mixtures)[:, None] + 2 * self.off * np.array([-1, 1])

    def gradient(self, mixtures: Doubles) -> Doubles:
        return np.broadcast_to(np.array(self.at), mixtures.shape)


def test_two_budgets_are_the_published_closed_form() -> None:
    weights = line_weights((1_000, 1_500), 10_000)
    np.testing.assert_allclose(weights, [-4.679, 5.679], atol=5e-4)
    assert amplification(weights) == pytest.approx(7.36, abs=0.01)
    np.testing.assert_allclose(line_weights((1_000, 1_500), 10_000, np.array([3.0, 0.2])), weights)


def test_budgets_four_times_apart_grow_noise_1_8_times() -> None:
    assert amplification(line_weights((1_000, 4_000), 10_000)) == pytest.approx(1.79, abs=0.01)
    assert amplification(line_weights((1_000, 2_000, 4_000), 10_000)) < 1.79


@given(
    st.lists(st.integers(10, 10**7), min_size=2, max_size=6, unique=True),
    st.integers(10, 10**8),
    st.integers(0, 10**6),
)
def test_weights_are_those_of_weighted_regression(budgets: list[int], budget: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    counts, values = generator.uniform(0.5, 2, len(budgets)), generator.normal(size=len(budgets))
    slope, start = np.polyfit(np.log(budgets), values, 1, w=np.sqrt(counts))
    found = line_weights(budgets, budget, counts) @ values
    assert found == pytest.approx(start + slope * np.log(budget), rel=1e-5, abs=1e-5)


def test_the_amplification_is_what_noise_does() -> None:
    budgets = (1_000, 2_000, 8_000)
    weights = line_weights(budgets, 80_000)
    noise = np.random.default_rng(0).normal(size=(20_000, 3))
    assert (noise @ weights).std() == pytest.approx(amplification(weights), rel=0.03)


def test_a_line_is_continued() -> None:
    laws = {n: Known((3 - 0.2 * np.log(n), 2 - 0.1 * np.log(n), 1.0), 1e-3) for n in (1_000, 2_000, 4_000)}
    found = scale_projection(laws, 40_000, MIXTURES)
    np.testing.assert_allclose(found.predict(MIXTURES), [3 - 0.2 * np.log(40_000), 2 - 0.1 * np.log(40_000), 1.0])
    np.testing.assert_allclose(found.error(MIXTURES), 0.001 * found.amplification)
    np.testing.assert_allclose(found.gradient(MIXTURES)[0], found.predict(MIXTURES))
    assert found.smooth
    assert not found.convex
    assert f"noise grows {found.amplification:.2f} times" in found.sentence()
    assert scale_projection(laws, 2_000, MIXTURES).convex


def test_a_budget_with_large_errors_counts_less() -> None:
    laws = {1_000: Known((2.0, 1.0, 0.0)), 2_000: Known((9.0, 5.0, 1.0), off=1.0), 4_000: Known((1.8, 0.9, 0.0))}
    found = scale_projection(laws, 8_000, MIXTURES)
    np.testing.assert_allclose(found.predict(MIXTURES), [1.7, 0.85, 0.0], atol=0.02)


def test_budgets_off_the_line_widen_the_interval() -> None:
    bent = {1_000: Known((2.0, 1.0, 0.0)), 2_000: Known((1.8, 0.8, -0.2)), 4_000: Known((1.9, 0.9, -0.1))}
    found = scale_projection(bent, 8_000, MIXTURES)
    assert found.off_line > 5
    assert found.error(MIXTURES[:1])[0] == pytest.approx(found.error(MIXTURES)[0])


def test_a_projection_that_tells_nothing_apart_is_refused_with_numbers() -> None:
    laws = {n: Known((2.0, 2.05, 2.1), off=0.02) for n in (1_000, 1_200, 1_500)}
    with pytest.raises(CuveeError, match=r"interval is \d.* wide, .* within 0.1 \(noise grows \d") as refusal:
        scale_projection(laws, 100_000, MIXTURES)
    assert "larger budgets" in str(refusal.value)
    assert scale_projection({n: Known((2.0, 2.05, 2.1), off=0.002) for n in (1_000, 2_000, 4_000)}, 8_000, MIXTURES)


def test_two_budgets_have_to_be_asked_for() -> None:
    laws = {n: Known((3.0, 2.0, 1.0)) for n in (1_000, 4_000)}
    with pytest.raises(CuveeError, match=r"3 budgets or more, found \[1000, 4000\]"):
        scale_projection(laws, 10_000, MIXTURES)
    assert scale_projection(laws, 10_000, MIXTURES, least_budgets=2).amplification == pytest.approx(1.79, abs=0.01)


@pytest.mark.parametrize(("budgets", "budget"), [((1_000, 1_000), 5), ((0, 10), 5), ((10, 20), 0), ((), 5)])
def test_what_is_no_line_is_refused(budgets: tuple[int, ...], budget: int) -> None:
    with pytest.raises(CuveeError, match="two different budgets above 0"):
        line_weights(budgets, budget)

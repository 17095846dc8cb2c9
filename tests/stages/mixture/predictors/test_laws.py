"""Every law: slopes, determinism, intervals that hold, convexity, refusals; each on the truth it is made for."""

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from schemas.errors import CuveeError
from stages.mixture.predictors import (
    PARAMETRIC,
    PREDICTORS,
    ExponentialLaw,
    GaussianProcess,
    GradientBoosting,
    Linear,
    LogLinear,
    fit_exponential_law,
    fit_gaussian_process,
    fit_gradient_boosting,
    fit_linear,
    fit_log_linear,
)
from stages.mixture.predictors.gaussian_process import _loss

Doubles = npt.NDArray[np.float64]
SLOPES = np.array([0.8, -1.5, 0.3, -0.4])


def mixtures(count: int, seed: int, sources: int = 4) -> Doubles:
    drawn = np.random.default_rng(seed).dirichlet(np.ones(sources), count)
    return drawn


def truth(shares: Doubles) -> Doubles:
    """Convex and no law's own form but the exponentials'."""
    found: Doubles = 2 + np.exp(shares @ SLOPES) + 0.5 * np.exp(shares @ np.array([-3.0, 1.0, 0.0, 1.0]))
    return found


def noisy(shares: Doubles, noise: float, seed: int) -> Doubles:
    return truth(shares) + noise * np.random.default_rng(seed).normal(size=len(shares))


@pytest.mark.parametrize("name", PREDICTORS)
def test_the_same_runs_give_the_same_law_and_a_law_of_its_kind_is_refitted_from_it(name: str) -> None:
    shares, asked = mixtures(40, 0), mixtures(9, 1)
    values = noisy(shares, 0.02, 0)
    first, second = (PREDICTORS[name](shares, values, seed=3) for _ in range(2))
    np.testing.assert_array_equal(first.predict(asked), second.predict(asked))
    again = PREDICTORS[name](shares, values, seed=3, like=first)
    np.testing.assert_allclose(again.predict(asked), first.predict(asked), atol=5e-3)
    even = PREDICTORS[name](shares, values, weights=np.full(len(values), 7.0), seed=3)
    np.testing.assert_allclose(even.predict(asked), first.predict(asked), atol=1e-9)


@pytest.mark.parametrize("name", PREDICTORS)
def test_a_run_that_does_not_count_changes_nothing(name: str) -> None:
    shares, asked = mixtures(40, 0), mixtures(9, 1)
    values = noisy(shares, 0.02, 0)
    counted = np.append(np.ones(40), 0.0)
    spoiled = np.append(values, values.mean())
    law = PREDICTORS[name](shares, values, seed=3)
    kept = PREDICTORS[name](np.vstack([shares, asked[:1]]), spoiled, weights=counted, seed=3, like=law)
    whole = PREDICTORS[name](shares, values, seed=3, like=law)
    tolerance = 0.2 if name == "gradient_boosting" else 1e-3  # trees put a run without weight into their leaves' counts
    np.testing.assert_allclose(kept.predict(asked), whole.predict(asked), atol=tolerance)


@pytest.mark.parametrize("name", [name for name in PREDICTORS if name != "gradient_boosting"])
def test_slopes_are_those_of_the_predictions(name: str) -> None:
    shares, asked = mixtures(40, 0), mixtures(6, 1)
    law = PREDICTORS[name](shares, noisy(shares, 0.02, 0), seed=0)
    assert law.smooth
    step = 1e-6
    for source in range(shares.shape[1]):
        towards = np.eye(shares.shape[1])[source] - asked
        ahead, back = law.predict(asked + step * towards), law.predict(asked - step * towards)
        along = (law.gradient(asked) * towards).sum(axis=1)
        np.testing.assert_allclose((ahead - back) / (2 * step), along, rtol=1e-4, atol=1e-5)


@settings(max_examples=30)
@given(arrays(np.float64, (3, 4), elements=st.floats(0, 1)), st.floats(0, 1))
def test_laws_that_call_themselves_convex_are(points: Doubles, part: float) -> None:
    points = (points + 1e-6) / (points + 1e-6).sum(axis=1, keepdims=True)
    for law in CONVEX:
        assert law.convex
        one, other = law.predict(points[:1])[0], law.predict(points[1:2])[0]
        between = law.predict(part * points[:1] + (1 - part) * points[1:2])[0]
        assert between <= part * one + (1 - part) * other + 1e-9


CONVEX = [PREDICTORS[name](mixtures(40, 0), noisy(mixtures(40, 0), 0.02, 0), seed=0) for name in PARAMETRIC]


@pytest.mark.parametrize("name", PREDICTORS)
def test_intervals_hold_nineteen_runs_in_twenty(name: str) -> None:
    held = []
    for seed in range({"gaussian_process": 6, "gradient_boosting": 2}.get(name, 3)):
        shares, asked = mixtures(60, seed), mixtures(300, 100 + seed)
        ends = PREDICTORS[name](shares, noisy(shares, 0.1, seed), seed=seed).interval(asked)
        measured = noisy(asked, 0.1, 200 + seed)
        held.append(((ends[:, 0] <= measured) & (measured <= ends[:, 1])).mean())
    assert 0.9 <= np.mean(held) <= 0.995


def test_the_linear_law_finds_planted_coefficients() -> None:
    shares = mixtures(50, 0)
    law = fit_linear(shares, shares @ SLOPES, seed=0)
    assert isinstance(law, Linear)
    np.testing.assert_allclose(law.coefficients, SLOPES, atol=1e-5)


def test_the_linear_law_stands_with_fewer_runs_than_sources() -> None:
    shares = mixtures(5, 0, sources=9)
    law = fit_linear(shares, shares @ np.arange(9.0), seed=0)
    assert np.isfinite(law.predict(np.eye(9))).all()


def test_the_log_linear_law_finds_planted_coefficients() -> None:
    shares = mixtures(60, 0)
    exponents = np.array([1.0, -2.0, 0.5, 0.0])
    law = fit_log_linear(shares, 1.5 + np.exp(shares @ exponents), seed=0)
    assert isinstance(law, LogLinear)
    assert law.floor == pytest.approx(1.5, abs=1e-3)
    np.testing.assert_allclose(law.exponents + np.log(law.scale), exponents, atol=2e-3)


def test_the_log_linear_law_follows_a_straight_line() -> None:
    shares, asked = mixtures(60, 0), mixtures(50, 1)
    law = fit_log_linear(shares, shares @ SLOPES, seed=0)
    assert np.abs(law.predict(asked) - asked @ SLOPES).max() < 0.03 * np.ptp(asked @ SLOPES)


def test_two_hidden_domains_take_two_exponentials() -> None:
    shares, asked = mixtures(80, 0), mixtures(200, 1)
    exponents = np.array([[2.0, -4.0, 0.0, -1.0], [-4.0, 2.0, -1.0, 0.0]])
    values = 1 + np.exp(shares @ exponents.T).sum(axis=1)
    law, single = fit_exponential_law(shares, values, seed=0), fit_log_linear(shares, values, seed=0)
    assert isinstance(law, ExponentialLaw)
    assert len(law.exponents) == 2
    measured = 1 + np.exp(asked @ exponents.T).sum(axis=1)
    errors = [np.abs(each.predict(asked) - measured).mean() for each in (law, single)]
    assert errors[0] < errors[1] / 2


def test_an_exponential_law_is_not_drawn_by_one_run_that_failed() -> None:
    shares, asked = mixtures(60, 0), mixtures(100, 1)
    values = noisy(shares, 0.01, 0)
    values[7] += 40
    wrong = [
        np.abs(f(shares, values, seed=0).predict(asked) - truth(asked)).mean()
        for f in (fit_exponential_law, fit_log_linear)
    ]
    assert wrong[0] < wrong[1] / 3


def test_the_process_has_the_slopes_of_its_likelihood() -> None:
    from scipy.optimize import approx_fprime

    generator = np.random.default_rng(0)
    runs, values, hyper = generator.normal(size=(12, 3)), generator.normal(size=12), generator.normal(size=5) - 1
    weights = generator.uniform(0.5, 2, 12)
    numeric = approx_fprime(hyper, lambda at: _loss(runs, values, weights, at)[0], 1e-7)
    np.testing.assert_allclose(_loss(runs, values, weights, hyper)[1], numeric, atol=1e-5)


def test_a_weight_of_two_is_a_run_twice_to_the_process() -> None:
    shares, asked = mixtures(20, 0), mixtures(30, 1)
    values = noisy(shares, 0.1, 0)
    law = fit_gaussian_process(shares, values, seed=0)
    assert isinstance(law, GaussianProcess)
    weights = np.append(np.full(5, 2.0), np.ones(15))
    noise = np.exp(law.hyper[-1]) + 1e-6
    covariance_once = law.factor @ law.factor.T
    weighted = fit_gaussian_process(shares, values, weights=weights, like=law)
    expected = covariance_once + np.diag(noise * (weights.mean() / weights - 1))
    np.testing.assert_allclose(weighted.factor @ weighted.factor.T, expected, atol=2e-2)
    assert not np.allclose(weighted.predict(asked), law.predict(asked))


def test_trees_are_as_many_as_an_eighth_of_the_mixtures_says_best() -> None:
    shares = mixtures(200, 0)
    law = fit_gradient_boosting(shares, truth(shares), seed=0)
    assert isinstance(law, GradientBoosting)
    assert law.trees > 300
    noise = fit_gradient_boosting(shares, np.random.default_rng(0).normal(size=200), seed=0)
    assert isinstance(noise, GradientBoosting)
    assert noise.trees < law.trees
    with pytest.raises(CuveeError, match="trees have no slopes"):
        law.gradient(shares)


@pytest.mark.parametrize("name", PREDICTORS)
@pytest.mark.parametrize(
    ("shares", "values", "message"),
    [
        (np.eye(3), np.ones(2), "expected mixtures"),
        (np.eye(3), np.array([1.0, np.nan, 2.0]), "finite"),
        (np.array([[0.5, 0.6], [1.0, 0.0]]), np.ones(2), "run 0 are off the simplex: they sum to 1.1"),
        (np.array([[0.5, 0.5], [0.5, 0.5]]), np.ones(2), "two mixtures or more"),
    ],
)
def test_what_cannot_be_fitted_is_refused(name: str, shares: Doubles, values: Doubles, message: str) -> None:
    with pytest.raises(CuveeError, match=message):
        PREDICTORS[name](shares, values, seed=0)

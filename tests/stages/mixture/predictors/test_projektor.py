"""projektor end to end on generated pilots: coefficients planted and found, mixtures and budgets nobody ran."""

import numpy as np
import numpy.typing as npt
import pytest

from schemas.errors import CuveeError
from stages.mixture.predictors import Predictor, Projektor, fit_projektor, projektor, scale_projection

Doubles = npt.NDArray[np.float64]
NOISE = 0.05
BUDGETS = (1_000, 2_000, 4_000)
B2, B1, C2, C1 = (
    np.array([0.02, -0.03, 0.05]),
    np.array([0.1, 0.2, 0.15]),
    np.array([0.3, 0.5, 0.2]),
    np.array([2.0, 1.0, 1.5]),
)
CENTRES = np.array([[0.0, 0.0], [4.0, 1.0], [1.0, 3.0]])
TARGET = np.array([1.5, 1.2])


def distance(shares: Doubles) -> Doubles:
    """Squared 2-Wasserstein distance of a mixture of three points to one: exact, and linear in the shares."""
    return shares @ ((CENTRES - TARGET) ** 2).sum(axis=1)


def grid() -> Doubles:
    """The published design: 66 mixtures of three sources in tenths."""
    return np.array([[i, j, 10 - i - j] for i in range(11) for j in range(11 - i)]) / 10


def truth(shares: Doubles, budget: int) -> Doubles:
    """The law at 1,000; falling with log N, faster for some mixtures."""
    base = (shares**2 @ B2 + shares @ B1) * distance(shares) + shares**2 @ C2 + shares @ C1
    found: Doubles = base - (0.1 + shares @ np.array([0.05, 0.1, 0.02])) * np.log(budget / 1_000)
    return found


def pilots(shares: Doubles, budget: int, seed: int, repeats: int = 6) -> tuple[Doubles, Doubles]:
    repeated = np.repeat(shares, repeats, axis=0)
    return repeated, truth(repeated, budget) + NOISE * np.random.default_rng((seed, budget)).normal(size=len(repeated))


def test_planted_coefficients_are_found_without_noise() -> None:
    shares = np.random.default_rng(0).dirichlet(np.ones(3), 200)
    far = 1 + np.sin(5 * shares[:, 0]) ** 2 + shares[:, 1] ** 3  # a distance that is no polynomial of the shares
    known = {row.tobytes(): value for row, value in zip(shares, far, strict=True)}
    values = (shares**2 @ B2 + shares @ B1) * far + shares**2 @ C2 + shares @ C1
    law = fit_projektor(shares, values, lambda rows: np.array([known[row.tobytes()] for row in rows]), seed=0)
    b2, b1, c2, c1 = law.coefficients.reshape(4, 3)
    np.testing.assert_allclose(b2, B2, atol=1e-3)
    np.testing.assert_allclose(b1, B1, atol=1e-3)
    np.testing.assert_allclose(c2, C2, atol=1e-3)
    np.testing.assert_allclose(c1 + law.level, C1, atol=1e-3)


def test_mixtures_on_the_far_side_are_predicted_within_the_noise() -> None:
    shares = grid()
    near, far = shares[shares[:, 1] < 0.5], shares[shares[:, 1] >= 0.5]
    errors, held = [], []
    for seed in range(8):
        law = fit_projektor(*pilots(near, 1_000, seed), distance, seed=seed)
        errors.append(np.abs(law.predict(far) - truth(far, 1_000)).mean())
        ends = law.interval(far)
        held.append(((ends[:, 0] <= truth(far, 1_000)) & (truth(far, 1_000) <= ends[:, 1])).mean())
    assert np.mean(errors) <= NOISE
    assert np.mean(held) >= 0.9


def test_projected_to_ten_times_the_largest_budget() -> None:
    shares = grid()
    near, far = shares[shares[:, 1] < 0.5], shares[shares[:, 1] >= 0.5]
    errors, held, lost = [], [], []
    for seed in range(6):
        laws: dict[int, Predictor] = {b: projektor(distance)(*pilots(near, b, seed), seed=seed) for b in BUDGETS}
        found, measured = scale_projection(laws, 40_000, shares), truth(far, 40_000)
        errors.append(np.abs(found.predict(far) - measured).mean())
        ends = found.interval(far)
        held.append(((ends[:, 0] <= measured) & (measured <= ends[:, 1])).mean())
        best = int(np.argmin(found.predict(shares)))
        lost.append(truth(shares, 40_000)[best] - truth(shares, 40_000).min())
    assert np.mean(errors) <= found.amplification * NOISE
    assert np.mean(held) >= 0.8
    assert np.mean(lost) <= found.amplification * NOISE


def test_slopes_follow_the_distance_too() -> None:
    shares, asked = grid(), np.random.default_rng(1).dirichlet(np.ones(3), 5)

    def curved(rows: Doubles) -> Doubles:
        return 1 + (rows**2).sum(axis=1)

    law = fit_projektor(shares, truth(shares, 1_000), curved, seed=0)
    exact = fit_projektor(shares, truth(shares, 1_000), curved, slopes=lambda rows: 2 * rows, seed=0)
    for source in range(3):
        towards = np.eye(3)[source] - asked
        along = (law.predict(asked + 1e-6 * towards) - law.predict(asked - 1e-6 * towards)) / 2e-6
        for each in (law, exact):
            np.testing.assert_allclose((each.gradient(asked) * towards).sum(axis=1), along, rtol=1e-3, atol=1e-4)


def test_slopes_stand_at_the_corners() -> None:
    law = fit_projektor(grid(), truth(grid(), 1_000), distance, seed=0)
    assert isinstance(law, Projektor)
    assert np.isfinite(law.gradient(np.eye(3))).all()


@pytest.mark.parametrize(
    "wrong", [lambda rows: -np.ones(len(rows)), lambda rows: np.ones(3), lambda rows: rows[:, 0] / 0]
)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_what_is_no_distance_is_refused(wrong: object) -> None:
    with pytest.raises(CuveeError, match="distances must be 66 numbers"):
        fit_projektor(grid(), truth(grid(), 1_000), wrong, seed=0)  # type: ignore[arg-type]

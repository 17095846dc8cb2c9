"""Choosing and stacking: repeats never straddle, the better law wins, ties go to the simpler."""

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.errors import CuveeError
from stages.mixture.predictors import PREDICTORS, Stacked, chosen, stacked
from stages.mixture.predictors.choice import left_out, simplest
from stages.mixture.predictors.folds import folds, mixture_groups
from stages.mixture.predictors.stacking import simplex_weights

Doubles = npt.NDArray[np.float64]
FAST = ("linear", "log_linear", "gaussian_process")


def runs(seed: int, count: int = 48, repeats: int = 1) -> tuple[Doubles, npt.NDArray[np.int64]]:
    shares = np.repeat(np.random.default_rng(seed).dirichlet(np.ones(3), count), repeats, axis=0)
    return shares, mixture_groups(shares)


@given(st.lists(st.integers(0, 9), min_size=3, max_size=40), st.integers(2, 12), st.integers(0, 99))
def test_every_run_is_left_out_once_and_no_mixture_straddles(names: list[int], count: int, seed: int) -> None:
    groups = np.array(names)
    seen = []
    for learned, rest in folds(groups, count, seed):
        assert not set(groups[learned]) & set(groups[rest])
        assert len(learned) + len(rest) == len(groups)
        seen.extend(rest.tolist())
    assert sorted(seen) == list(range(len(groups)))


def test_repeats_of_a_mixture_are_one_group() -> None:
    shares = np.array([[0.1, 0.9], [0.3, 0.7], [0.1 + 1e-12, 0.9]])
    groups = mixture_groups(shares)
    assert groups[0] == groups[2] != groups[1]


def test_no_law_has_seen_the_mixture_that_it_predicts() -> None:
    """A law that remembers runs and knows nothing else would be perfect if one run of a mixture were left in."""
    shares, groups = runs(0, 12, repeats=3)
    values = np.random.default_rng(0).normal(size=12).repeat(3)

    class Remembers:
        convex, smooth = False, False

        def __init__(self, known: dict[bytes, float]) -> None:
            self.known = known

        def predict(self, mixtures: Doubles) -> Doubles:
            return np.array([self.known.get(row.tobytes(), 99.0) for row in mixtures])

    def remember(mixtures: Doubles, values: Doubles, **_: object) -> Remembers:
        return Remembers({row.tobytes(): float(value) for row, value in zip(mixtures, values, strict=True)})

    found = left_out({"remembers": remember}, shares, values, groups, 0)  # type: ignore[dict-item]
    assert (found["remembers"] == 99).all()


def test_a_straight_line_is_taken_for_one() -> None:
    shares, groups = runs(0)
    values = shares @ np.array([1.0, 2.0, 4.0]) + 0.05 * np.random.default_rng(0).normal(size=48)
    choice = chosen(shares, values, groups, FAST, seed=0)
    assert choice.name == "linear"
    assert set(choice.scores) == set(choice.held_out) == set(FAST)
    assert choice.scores["linear"] == pytest.approx(0.05, rel=0.4)


def test_a_law_that_bends_is_not_taken_for_a_line() -> None:
    shares, groups = runs(0)
    values = 1 + np.exp(shares @ np.array([2.0, -3.0, 0.0])) + 0.02 * np.random.default_rng(0).normal(size=48)
    choice = chosen(shares, values, groups, FAST, seed=0)
    assert choice.name == "log_linear"
    again = choice.refitted(shares, values, np.ones(48), 0)
    np.testing.assert_allclose(again.predict(shares), choice.predictor.predict(shares), atol=1e-4)


def test_what_no_formula_follows_is_left_to_the_process() -> None:
    shares, groups = runs(0, 80)
    values = np.sin(9 * shares[:, 0]) + shares[:, 1]
    assert chosen(shares, values, groups, FAST, seed=0).name == "gaussian_process"


def test_the_first_law_within_one_standard_error_is_taken() -> None:
    groups = np.arange(100)
    noise = np.random.default_rng(0).normal(size=100) ** 2
    close = {"simple": noise + 0.01 * np.tile([-3.0, 3.2], 50), "best": noise}
    assert simplest(close, groups) == "simple"
    assert simplest({**close, "simple": noise + 0.01}, groups) == "best"


def test_repeats_do_not_make_a_choice_surer() -> None:
    errors = {"simple": np.array([1.3, 0.9, 1.0]), "best": np.ones(3)}
    repeated = {name: np.repeat(values, 50) for name, values in errors.items()}
    assert simplest(errors, np.arange(3)) == simplest(repeated, np.repeat(np.arange(3), 50)) == "simple"


@given(st.integers(0, 10**6), st.integers(1, 5))
def test_stack_weights_are_the_best_on_the_simplex(seed: int, laws: int) -> None:
    generator = np.random.default_rng(seed)
    values = generator.normal(size=30)
    predicted = values[:, None] + generator.normal(size=(30, laws)) * generator.uniform(0.1, 2, laws)
    weights = simplex_weights(predicted, values)
    assert (weights >= 0).all()
    assert weights.sum() == pytest.approx(1)
    mine = ((predicted @ weights - values) ** 2).mean()
    others = generator.dirichlet(np.ones(laws), 200)
    best = ((predicted @ others.T - values[:, None]) ** 2).mean(axis=0).min()
    assert mine <= best * 1.05 + 1e-9


def test_a_stack_lies_between_its_laws_and_holds_what_it_promises() -> None:
    shares, groups = runs(0, 60)
    generator = np.random.default_rng(0)

    def truth(rows: Doubles) -> Doubles:
        return np.exp(2 * rows[:, 0]) + 0.3 * np.sin(8 * rows[:, 1])

    choice = stacked(shares, truth(shares) + 0.1 * generator.normal(size=60), groups, FAST, seed=0)
    stack = choice.predictor
    assert choice.name == "stacked"
    assert isinstance(stack, Stacked)
    assert sum(stack.weights.values()) == pytest.approx(1)
    assert choice.scores["stacked"] <= min(choice.scores.values()) + 1e-3
    asked = generator.dirichlet(np.ones(3), 500)
    each = np.stack([law.predict(asked) for law in stack.laws.values()])
    assert (each.min(axis=0) - 1e-9 <= stack.predict(asked)).all()
    assert (stack.predict(asked) <= each.max(axis=0) + 1e-9).all()
    ends, measured = stack.interval(asked), truth(asked) + 0.1 * generator.normal(size=500)
    assert 0.88 <= ((ends[:, 0] <= measured) & (measured <= ends[:, 1])).mean() <= 1
    np.testing.assert_allclose(choice.refitted(shares, truth(shares), None, 0).gradient(asked[:3]).shape, (3, 3))


def test_the_same_seed_gives_the_same_choice_whatever_the_names_of_groups() -> None:
    shares, groups = runs(0)
    values = np.exp(shares[:, 0])
    one = chosen(shares, values, groups, FAST, seed=1)
    other = chosen(shares, values, groups * 7 + 3, FAST[::-1], seed=1)
    assert one.name == other.name
    for name in FAST:
        np.testing.assert_array_equal(one.held_out[name], other.held_out[name])


def test_what_cannot_be_chosen_from_is_refused() -> None:
    shares, _ = runs(0, 3)
    with pytest.raises(CuveeError, match="no law is called 'loglinear'"):
        chosen(shares, np.ones(3), np.arange(3), ["loglinear"], seed=0)
    for choose in (chosen, stacked):
        with pytest.raises(CuveeError, match="takes three of them, found 2"):
            choose(shares, np.ones(3), np.array([0, 0, 1]), FAST, seed=0)
    assert next(iter(PREDICTORS)) == "linear"

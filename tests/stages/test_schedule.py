import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.errors import ContractError
from stages.mixture.doremi import DoReMi
from stages.schedule import Course, Path, Signals, exponentiated, on_simplex

COURSE = Course(("a", "b", "c"), (), np.array([0.5, 0.3, 0.2]), 100, "0")


@given(
    st.lists(st.floats(0, 1), min_size=3, max_size=3).filter(sum),
    st.lists(st.floats(-800, 800), min_size=3, max_size=3),
)
def test_exponentiated_weights_stay_on_the_simplex(given_weights: list[float], exponents: list[float]) -> None:
    start = np.array(given_weights) / sum(given_weights)
    found = exponentiated(start, np.array(exponents))
    assert found.sum() == pytest.approx(1) and (found >= 0).all() and np.isfinite(found).all()
    assert (found[start == 0] == 0).all()
    lifted = exponentiated(start, np.array(exponents), 0.3)
    assert (lifted >= 0.1 - 1e-12).all() and lifted.sum() == pytest.approx(1)


def test_exponentiated_by_hand() -> None:
    found = exponentiated([0.5, 0.25, 0.25], np.log([1.0, 2.0, 4.0]))
    assert found == pytest.approx([0.25, 0.25, 0.5])
    assert exponentiated([0.5, 0.25, 0.25], np.log([1.0, 2.0, 4.0]), 0.4) == pytest.approx(0.6 * found + 0.4 / 3)


@pytest.mark.parametrize("weights", [[0.5, 0.6, 0.1], [1.1, -0.1, 0.0], [np.nan, 0.5, 0.5]])
def test_points_off_the_simplex_are_refused(weights: list[float]) -> None:
    with pytest.raises(ContractError, match="sum to 1"):
        on_simplex(np.array(weights))


def test_a_path_is_json_and_goes_on_from_it() -> None:
    schedule = DoReMi(every=7)
    noise = np.random.default_rng(0)
    told = [Signals(step, 0.1, excess=noise.random(3)) for step in range(0, 70, 7)]
    whole = Path(schedule.start(COURSE))
    for signals in told:
        schedule.update(whole, signals, COURSE)
    first = Path(schedule.start(COURSE))
    for signals in told[:4]:
        schedule.update(first, signals, COURSE)
    state, updates = json.loads(json.dumps([first.state, first.updates], allow_nan=False))
    second = Path(state, updates)
    for signals in told[4:]:
        schedule.update(second, signals, COURSE)
    assert second.state == whole.state and second.updates == whole.updates
    assert whole.state["next"] == 70
    answers = np.array([update["weights"] for update in whole.updates])
    assert schedule.final(whole.state) == pytest.approx(answers.mean(axis=0))


def test_only_the_tail_is_recommended() -> None:
    schedule = DoReMi(every=10, tail=0.3)
    path, noise = Path(schedule.start(COURSE)), np.random.default_rng(0)
    for step in range(0, 100, 10):
        schedule.update(path, Signals(step, 0.1, excess=noise.random(3)), COURSE)
    answers = np.array([update["weights"] for update in path.updates])
    assert schedule.final(path.state) == pytest.approx(answers[7:].mean(axis=0))
    short = Path(schedule.start(COURSE))
    schedule.update(short, Signals(0, 0.1, excess=noise.random(3)), COURSE)
    assert schedule.final(short.state) == pytest.approx(short.weights), "before the tail, where it stands"


def test_before_the_first_answer_the_recommended_weights_are_those_of_the_start() -> None:
    schedule = DoReMi(reference="natural")
    assert schedule.final(schedule.start(COURSE)).tolist() == [0.5, 0.3, 0.2]

import numpy as np
import pytest

from schemas.errors import ContractError
from stages.mixture.doremi import DoReMi
from stages.schedule import Course, Signals
from tests.stages.mixture.planted import trained

COURSE = Course(("a", "b"), (), np.array([0.8, 0.2]), 100, "0")


def test_one_update_by_hand() -> None:
    """log a = (log .8 + 2 * 0.1, log .2 + 2 * 0.6); softmax, then 2 % evenly."""
    schedule = DoReMi(eta=2.0, smoothing=0.02, reference="natural")
    state = schedule.answer(schedule.start(COURSE), Signals(0, 0.1, excess=np.array([0.1, 0.6])), COURSE)
    raised = np.array([0.8 * np.exp(0.2), 0.2 * np.exp(1.2)])
    assert state["weights"] == pytest.approx((0.98 * raised / raised.sum() + 0.01).tolist())
    again = schedule.answer(state, Signals(10, 0.1, excess=np.array([0.0, 0.0])), COURSE)
    assert again["weights"] == pytest.approx((0.98 * np.array(state["weights"]) + 0.01).tolist())
    assert schedule.final(again) == pytest.approx((np.array(state["weights"]) + np.array(again["weights"])) / 2)


def test_published_settings_are_the_defaults() -> None:
    assert (DoReMi().eta, DoReMi().smoothing, DoReMi().reference) == (1.0, 1e-4, "uniform")


def test_what_can_be_learned_rises_above_what_is_easy_and_what_is_noise() -> None:
    found = trained(DoReMi(every=2), "easy", "good", "noise", steps=160, aimed=False)
    assert found.weights["good"] > max(found.weights["easy"], found.weights["noise"]) + 0.05
    assert found.drawn["good"] > max(found.drawn["easy"], found.drawn["noise"])


def test_an_untold_schedule_says_so() -> None:
    with pytest.raises(ContractError, match="no excess"):
        DoReMi().answer(DoReMi().start(COURSE), Signals(0, 0.1), COURSE)

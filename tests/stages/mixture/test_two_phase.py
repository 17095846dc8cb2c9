import numpy as np
import pytest

from schemas.errors import CuveeError
from stages.mixture.two_phase import TwoPhase
from stages.schedule import Course, Path, Signals
from tests.stages.mixture.planted import trained

COURSE = Course(("a", "b", "c"), (), np.array([0.5, 0.4, 0.1]), 100, "0")


def test_large_sources_come_first_and_the_mixture_second() -> None:
    schedule = TwoPhase(first=0.3, mixture={"a": 0.2, "c": 0.8})
    path = Path(schedule.start(COURSE))
    assert path.weights == pytest.approx([5 / 9, 4 / 9, 0]) and path.state["next"] == 30
    schedule.update(path, Signals(30, 0.1), COURSE)
    assert path.weights == pytest.approx([0.2, 0, 0.8]) and path.state["next"] == 100
    assert schedule.final(path.state) == pytest.approx([0.2, 0, 0.8])
    assert TwoPhase(large=("c",)).start(COURSE)["weights"] == [0, 0, 1]


def test_the_batches_follow() -> None:
    found = trained(TwoPhase(first=0.25, large=("good",), mixture={"harm": 1.0}), "good", "harm", steps=20)
    assert found.drawn == {"good": 60, "harm": 180}


def test_what_does_not_fit_is_refused() -> None:
    for wrong, said in (
        ({"large": ("d",)}, "source 'd'; sources are a, b, c"),
        ({"mixture": {"d": 1.0}}, "source 'd'"),
        ({"mixture": {"a": 0.7}}, "sum to 1"),
    ):
        with pytest.raises(CuveeError, match=said):
            TwoPhase.model_validate(wrong).start(COURSE)

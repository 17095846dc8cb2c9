import numpy as np
import pytest

from schemas.errors import ContractError, CuveeError
from stages.mixture.aioli import Aioli, mixing_law, probe_mixtures
from stages.schedule import Course, Path, Signals
from tests.stages.mixture.planted import trained

COURSE = Course(("a", "b", "c"), ("t", "u"), np.full(3, 1 / 3), 1000, "0")
LAW = np.array([[0.3, -0.1, 0.02], [0.05, 0.2, 0.0]])


def walked(schedule: Aioli, law: np.ndarray, until: int) -> Path:
    """A run whose losses fall as a linear mixing law has it, a step at a time."""
    path, losses, step = Path(schedule.start(COURSE)), np.array([40.0, 50.0]), 0
    while step < until:
        if step >= path.state["next"]:
            schedule.update(path, Signals(step, 0.1, losses=losses), COURSE)
        losses = losses - law @ path.weights
        step += 1
    return path


@pytest.mark.parametrize("one_hot", [1.0, 0.6])
def test_a_planted_linear_law_is_recovered(one_hot: float) -> None:
    path = walked(Aioli(rounds=2, steps=3, one_hot=one_hot, normalised=False, every=30), LAW, 20)
    assert np.array(path.state["law"]) == pytest.approx(3 * LAW), "falls of three steps"


def test_the_update_follows_the_column_sums_by_hand() -> None:
    schedule = Aioli(rounds=1, steps=1, one_hot=1.0, eta=0.5, every=10)
    path = walked(schedule, LAW, 10)
    shifted = LAW + 0.1
    raised = np.exp(0.5 * (shifted / shifted.sum()).sum(axis=0))
    assert path.weights == pytest.approx(raised / raised.sum())
    assert [update["step"] for update in path.updates] == [0, 1, 2, 3]
    assert path.state["next"] == 3 + 10 - 3
    further = walked(schedule, LAW, 20)
    assert further.weights == pytest.approx(raised**2 / (raised**2).sum())
    assert schedule.final(further.state) == pytest.approx((path.weights + further.weights) / 2), "no probe counts"


def test_every_source_is_probed_once_a_round() -> None:
    path = walked(Aioli(rounds=3, steps=2, one_hot=0.75), LAW, 17)
    probed = [int(np.argmax(update["weights"])) for update in path.updates]
    assert all(sorted(probed[start : start + 3]) == [0, 1, 2] for start in (0, 3, 6))
    assert all(max(update["weights"]) == 0.75 for update in path.updates)


def test_laws_and_probes() -> None:
    assert probe_mixtures(3, 0.5).tolist() == [[0.5, 0.25, 0.25], [0.25, 0.5, 0.25], [0.25, 0.25, 0.5]]
    assert probe_mixtures(1, 0.5).tolist() == [[1.0]]
    law = mixing_law(-LAW, np.eye(3), normalised=True)
    assert law.min() == 0 and law.sum() == pytest.approx(1)
    assert (mixing_law(np.zeros((2, 3)), np.eye(3), normalised=True) == 0).all()


def test_a_harmful_source_falls_and_the_useful_one_rises() -> None:
    found = trained(Aioli(every=20, rounds=1, steps=2, eta=0.5), "good", "harm", "noise", steps=160)
    assert found.weights["good"] > found.weights["noise"] > found.weights["harm"]


def test_what_cannot_be_learned_from_is_refused() -> None:
    with pytest.raises(ContractError, match="nothing to tell apart"):
        Aioli(one_hot=0.33).answer(Aioli().start(COURSE), Signals(0, 0.1, losses=np.ones(2)), COURSE)
    with pytest.raises(CuveeError, match="3 sources for 1200 steps before its first update, and the run has 1000"):
        Aioli(rounds=100).start(COURSE)
    with pytest.raises(ContractError, match="no losses"):
        Aioli().answer(Aioli().start(COURSE), Signals(0, 0.1), COURSE)

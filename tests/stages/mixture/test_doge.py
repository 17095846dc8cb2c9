import numpy as np
import pytest

from schemas.errors import ContractError
from stages.mixture.doge import DoGE, scores
from stages.schedule import Course, Signals
from tests.stages.mixture.planted import trained

NATURAL = np.array([0.5, 0.5])
AIMED = Course(("a", "b"), ("t",), NATURAL, 100, "0")
OWN = Course(("a", "b"), (), NATURAL, 100, "0")


def test_one_update_by_hand() -> None:
    """Gradients a = (3, 4), b = (0, 1), t = (1, 0): products 3 and 0, mean norm 3; rate 0.02, mu 0.05."""
    gradients, target = np.array([[3.0, 4.0], [0.0, 1.0]]), np.array([[1.0, 0.0]])
    norms = np.linalg.norm(gradients, axis=1)
    signals = Signals(0, 0.02, products=gradients @ target.T, norms=norms)
    schedule = DoGE()
    state = schedule.answer(schedule.start(AIMED), signals, AIMED)
    raised = np.exp([0.02 * 3 / (3 + 1e-6) / 0.05, 0.0])
    assert state["weights"] == pytest.approx((raised / raised.sum()).tolist())
    own = schedule.answer(schedule.start(OWN), Signals(0, 0.02, products=gradients @ gradients.T, norms=norms), OWN)
    assert own["weights"] == pytest.approx([0.5, 0.5]), "each helps the other alike; helping oneself does not count"


def test_scores_are_clipped_in_units_of_the_rate() -> None:
    found = scores(np.array([[100.0], [-100.0], [0.5]]), np.ones(3), 0.1, own=False, least=0.0, most=5.0)
    assert found == pytest.approx([0.5, 0.0, 0.05], rel=1e-5)
    assert scores(np.array([[-100.0]]), np.ones(1), 0.1, own=False, least=-5.0, most=5.0) == pytest.approx([-0.5])


def test_a_harmful_source_falls_and_the_useful_one_rises() -> None:
    found = trained(DoGE(every=2), "good", "harm", "noise", steps=160)
    last = found.updates[-1]["weights"]
    assert found.weights["good"] > 0.6 and found.weights["harm"] < found.weights["noise"]
    assert last[1] < 0.05 and last[0] > 0.8
    assert sum(found.drawn.values()) == 160 * 12


def test_the_same_seed_gives_the_same_path_and_another_one_another() -> None:
    paths = [trained(DoGE(every=5), "good", "harm", steps=20, seed=seed).updates for seed in ("0", "0", "1")]
    assert paths[0] == paths[1] != paths[2]


def test_an_untold_schedule_says_so() -> None:
    with pytest.raises(ContractError, match="no gradients"):
        DoGE().answer(DoGE().start(OWN), Signals(0, 0.1), OWN)

import numpy as np
import pytest

from schemas.errors import CuveeError
from stages.train.metrics.group_losses import group_losses, spurious_strength


def test_groups_by_hand() -> None:
    losses = np.array([2.0, 4.0, 30.0, 1.0, 9.0])
    tokens = np.array([2.0, 2.0, 3.0, 1.0, 3.0])
    found = group_losses(losses, tokens, ["a", "a", "b", "b", "a"], [0, 0, 0, 1, 1], least=1)
    nll = {(group["source"], group["concept"]): group["nll"] for group in found["groups"]}
    assert nll == {("a", 0): 1.5, ("a", 1): 3.0, ("b", 0): 10.0, ("b", 1): 1.0}
    assert found["group_balanced"] == pytest.approx((1.5 + 3 + 10 + 1) / 4)
    assert found["worst_group"] == 10 and found["worst"]["source"] == "b"
    assert found["group_balanced"] != losses.sum() / tokens.sum()


def test_a_group_of_few_samples_is_no_worst_one() -> None:
    losses = np.array([1.0] * 5 + [50.0])
    found = group_losses(losses, np.ones(6), ["a"] * 5 + ["b"], [0] * 6)
    assert found["worst_group"] == 1 and len(found["groups"]) == 2
    assert group_losses(losses[5:], np.ones(1), ["b"], [0])["worst_group"] is None
    with pytest.raises(CuveeError, match="no held-out sample"):
        group_losses(np.zeros(0), np.zeros(0), [], [])


def test_spurious_strength_against_its_definition() -> None:
    sources, concepts = ["a"] * 9 + ["b"] * 7, [0] * 6 + [1] * 3 + [1] * 5 + [2] * 2
    pairs = list(zip(sources, concepts, strict=True))
    mutual, entropy = 0.0, 0.0
    for concept in set(concepts):
        p = concepts.count(concept) / 16
        entropy -= p * np.log(p)
        for source in set(sources):
            joint = pairs.count((source, concept)) / 16
            mutual += joint * np.log(joint / p / (sources.count(source) / 16)) if joint else 0.0
    assert spurious_strength(sources, concepts, 0)["spurious_strength"] == pytest.approx(mutual / entropy)


def test_spurious_strength_at_its_ends() -> None:
    decided = spurious_strength(["a", "a", "b", "b"] * 20, [0, 0, 1, 1] * 20, 0)
    assert decided["spurious_strength"] == pytest.approx(1) and decided["spurious_strength_chance"] < 0.1
    apart = spurious_strength(["a", "a", "b", "b"] * 20, [0, 1, 0, 1] * 20, 0)
    assert apart["spurious_strength"] == pytest.approx(0, abs=1e-12)
    assert spurious_strength(["a", "b"], [3, 3], 0)["spurious_strength"] == 0

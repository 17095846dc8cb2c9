import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from schemas.errors import ContractError
from stages.mixture.tikmix_d import TiKMiXD, best_mixture
from stages.schedule import Course, Signals
from stages.train.signals import inner_products
from tests.stages.mixture.planted import trained

COURSE = Course(("a", "b", "c"), ("t", "u"), np.full(3, 1 / 3), 100, "0")


def objective(shares: np.ndarray, influence: np.ndarray, entropy: float) -> np.ndarray:
    gains = influence.mean(axis=1)
    inner = np.where(shares > 0, shares * np.log(np.maximum(shares, 1e-300)), 0.0)
    return shares @ (gains / (np.abs(gains).max() or 1.0)) - entropy * inner.sum(axis=-1)


@settings(max_examples=60, deadline=None)
@given(arrays(np.float64, (3, 2), elements=st.floats(-2, 2)), st.sampled_from([0.1, 0.5, 2.0]), st.integers(0, 99))
def test_the_mixture_beats_every_point_of_a_grid_that_hurts_no_target(
    influence: np.ndarray, entropy: float, seed: int
) -> None:
    before = np.random.default_rng(seed).dirichlet(np.ones(3))
    floors = np.minimum(0.0, before @ influence)
    found = best_mixture(influence, floors, entropy)
    scale = np.abs(influence.mean(axis=1)).max() or 1.0
    if scale < 1e-3:
        return
    assert found.sum() == pytest.approx(1) and (found >= 0).all()
    assert (found @ influence >= floors - 1e-5 * max(1.0, np.abs(influence).max())).all()
    grid = np.array([p for p in itertools.product(np.linspace(0, 1, 41), repeat=2) if sum(p) <= 1])
    grid = np.column_stack([grid, 1 - grid.sum(axis=1)])
    allowed = np.vstack([grid[(grid @ influence >= floors).all(axis=1)], before])
    assert objective(found, influence, entropy) >= objective(allowed, influence, entropy).max() - 1e-4


def test_without_a_binding_guard_the_mixture_is_a_softmax() -> None:
    influence = np.array([[2.0], [1.0], [-1.0]])
    state = TiKMiXD(entropy=0.5).answer(TiKMiXD().start(COURSE), Signals(0, 0.1, products=influence), COURSE)
    raised = np.exp(np.array([1.0, 0.5, -0.5]) / 0.5)
    assert state["weights"] == pytest.approx((raised / raised.sum()).tolist())


def test_the_guard_protects_the_target_that_loses() -> None:
    influence = np.array([[3.0, -1.0], [0.2, 0.4], [0.0, 0.0]])
    start = TiKMiXD().start(COURSE)
    signals = Signals(0, 0.1, products=influence)
    free = np.array(TiKMiXD(guarded=False).answer(start, signals, COURSE)["weights"])
    kept = np.array(TiKMiXD().answer(start, signals, COURSE)["weights"])
    floor = min(0.0, float(influence[:, 1].mean()))
    assert (free @ influence)[1] < floor - 0.1
    assert (kept @ influence)[1] == pytest.approx(floor, abs=1e-6)


def test_a_harmful_source_falls_and_the_useful_one_rises() -> None:
    found = trained(TiKMiXD(every=10), "good", "harm", "noise")
    assert found.weights["good"] > found.weights["noise"] > found.weights["harm"] and found.weights["harm"] < 0.15
    diagonal = trained(TiKMiXD(every=10, preconditioner="diagonal"), "good", "harm", "noise")
    assert diagonal.weights["good"] > 0.5 > 0.15 > diagonal.weights["harm"]


@pytest.mark.parametrize("scaled", [False, True])
def test_influence_ranks_sources_as_retraining_with_more_of_them_does(scaled: bool) -> None:
    """Logistic regression on twelve sources of growing label noise; each is made 5 % heavier and all is trained anew.

    Where features have different scales the diagonal of the Hessian is needed, which here is known.
    """
    import torch
    from scipy.stats import spearmanr

    noise = np.random.default_rng(5)
    stretch = np.array([8.0, 4.0, 2.0, 1.0, 0.5]) if scaled else np.ones(5)
    truth = noise.normal(size=5)
    parts = []
    for number in range(12):
        features = noise.normal(size=(400, 5)) + 0.3 * noise.normal(size=5)
        flipped = noise.random(400) < number / 14
        labels = (noise.random(400) < 1 / (1 + np.exp(-features @ truth))) ^ flipped
        parts.append((features * stretch, labels.astype(np.float64)))
    clean = noise.normal(size=(4000, 5))
    held = (clean * stretch, (noise.random(4000) < 1 / (1 + np.exp(-clean @ truth))).astype(np.float64))

    def gradient(weights: np.ndarray, features: np.ndarray, labels: np.ndarray) -> np.ndarray:
        return features.T @ (1 / (1 + np.exp(-features @ weights)) - labels) / len(labels)

    def hessian(weights: np.ndarray, features: np.ndarray) -> np.ndarray:
        chance = 1 / (1 + np.exp(-features @ weights))
        return (features * (chance * (1 - chance))[:, None]).T @ features / len(features)

    def fitted(shares: np.ndarray) -> np.ndarray:
        weights = np.zeros(5)
        for _ in range(30):
            slope = sum(p * gradient(weights, *part) for p, part in zip(shares, parts, strict=True))
            curve = sum(p * hessian(weights, part[0]) for p, part in zip(shares, parts, strict=True))
            weights = weights - np.linalg.solve(curve, slope)
        return weights

    def loss(weights: np.ndarray) -> float:
        margin = held[0] @ weights
        return float((np.logaddexp(0, margin) - held[1] * margin).mean())

    even = np.full(12, 1 / 12)
    base = fitted(even)
    lowered = [loss(base) - loss(fitted((even + 0.05 * np.eye(12)[i]) / 1.05)) for i in range(12)]
    flat = [torch.from_numpy(gradient(base, *part)) for part in parts]
    row = [torch.from_numpy(gradient(base, *held))]
    curve = sum(p * hessian(base, part[0]) for p, part in zip(even, parts, strict=True))
    scale = torch.from_numpy(1 / np.diag(curve)) if scaled else None
    influence = inner_products(flat, row, scale)[:, 0]
    assert spearmanr(influence, lowered).statistic >= 0.9
    best = best_mixture(influence[:, None], np.zeros(1), 0.2)
    assert loss(fitted(best)) < loss(base)


def test_an_untold_schedule_says_so() -> None:
    with pytest.raises(ContractError, match="no gradients"):
        TiKMiXD().answer(TiKMiXD().start(COURSE), Signals(0, 0.1), COURSE)

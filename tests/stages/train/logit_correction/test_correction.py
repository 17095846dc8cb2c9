import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bench.logit_correction import planted_row
from schemas.errors import CuveeError
from stages.train.logit_correction.concept_head import concept_losses, log_prior_of
from stages.train.logit_correction.correction import (
    corrected_losses,
    counted_prior,
    group_accuracies,
    group_balanced,
)


def test_the_loss_by_its_formula_and_as_a_margin() -> None:
    logits, labels = torch.randn(7, 4, dtype=torch.float64), torch.tensor([0, 1, 2, 3, 0, 1, 2])
    prior = torch.rand(7, 4, dtype=torch.float64) + 0.01
    found = corrected_losses(logits, labels, prior.log())
    for i, y in enumerate(labels.tolist()):
        above = torch.log((logits[i].exp() * prior[i]).sum())
        assert found[i] == pytest.approx(float(above - logits[i, y] - prior[i, y].log()))
        margins = [float(logits[i, k] - logits[i, y] + torch.log(prior[i, k] / prior[i, y])) for k in range(4)]
        assert found[i] == pytest.approx(float(np.log(np.exp(margins).sum())))


def test_joint_and_conditional_prior_give_one_loss() -> None:
    drawn = np.random.default_rng(0)
    labels, kinds = drawn.integers(0, 4, 200), drawn.integers(0, 3, 200)
    given_kind = counted_prior(labels, kinds, 4, 3)
    assert given_kind.sum(axis=0) == pytest.approx(np.ones(3))
    joint = given_kind * drawn.random(3)
    logits, y = torch.randn(200, 4, dtype=torch.float64), torch.from_numpy(labels)
    one, other = (corrected_losses(logits, y, torch.from_numpy(np.log(d)).T[kinds]) for d in (given_kind, joint))
    torch.testing.assert_close(one, other)


def test_the_counted_prior_by_hand() -> None:
    prior = counted_prior(np.array([0, 0, 1]), np.array([0, 0, 1]), 2, 2, smoothing=0.5)
    assert prior == pytest.approx(np.array([[2.5 / 3, 0.5 / 2], [0.5 / 3, 1.5 / 2]]))
    with pytest.raises(CuveeError, match="found smoothing 0"):
        counted_prior(np.array([0]), np.array([0]), 2, 2, smoothing=0)


@given(st.integers(0, 40))
def test_the_corrected_optimum_is_the_balanced_bayes_rule(seed: int) -> None:
    """Where x = (signal, a) is discrete, f + ln P(y|a) = ln P(y|x, a): f ranks classes by P(signal | y, a)."""
    drawn = np.random.default_rng(seed)
    seen = drawn.random((3, 2, 4)) + 0.05  # P(y, a, signal), not normalised
    prior = seen.sum(axis=2) / seen.sum(axis=(0, 2))
    posterior = seen / seen.sum(axis=0)
    best = np.log(posterior) - np.log(prior)[:, :, None]
    likelihood = seen / seen.sum(axis=2, keepdims=True)
    assert np.array_equal(best.argmax(axis=0), likelihood.argmax(axis=0))


def test_groups() -> None:
    told, labels, kinds = np.array([0, 1, 1, 1]), np.array([0, 0, 1, 1]), np.array([0, 0, 0, 1])
    by_group = group_accuracies(told, labels, kinds)
    assert by_group == {(0, 0): 0.5, (1, 0): 1.0, (1, 1): 1.0}
    assert group_balanced(by_group) == pytest.approx(2.5 / 3)


@pytest.mark.parametrize("seed", range(1, 6))
def test_planted_sources(seed: int) -> None:
    """Two sources, ten concepts, 95 % of a concept in one source; seeds 1 to 5 are those of the published table."""
    row = planted_row(seed)
    assert row["counted"]["worst"] > row["plain"]["worst"] + 10
    assert row["counted"]["balanced"] > row["plain"]["balanced"] - 1


def test_the_concept_head_beside_a_caption_loss() -> None:
    head = torch.nn.Linear(5, 3)
    outputs = torch.randn(6, 2, 5, requires_grad=True)
    concepts, sources = torch.tensor([0, 1, 2, 0, 1, 2]), torch.tensor([0, 0, 0, 1, 1, 1])
    log_prior = torch.from_numpy(log_prior_of(concepts.numpy(), sources.numpy(), 3, 2)).float()
    losses = concept_losses(head, outputs, concepts, sources, log_prior)
    plain = torch.nn.functional.cross_entropy(head(outputs.mean(1)), concepts, reduction="none")
    torch.testing.assert_close(losses, plain)  # every group is as large as any other: nothing to correct
    losses.sum().backward()
    assert outputs.grad is not None and outputs.grad.abs().sum() > 0 and head.weight.grad is not None
    skewed = concept_losses(head, outputs, concepts, sources, log_prior + torch.tensor([[2.0, 0], [0, 0], [0, 0]]))
    assert torch.equal(skewed[3:], losses[3:]) and skewed[0] < losses[0] and skewed[1] > losses[1]

from dataclasses import replace

import numpy as np
import pytest
import torch

from bench.cases.coloured_digits import CLASSES, balanced, biased, splits
from bench.logit_correction import CHOSEN, MINORITIES, SEEDS, accuracies, coloured_row, network, single, two_branch
from schemas.errors import CuveeError
from stages.train.language_model import one_thread
from stages.train.logit_correction.biased_branch import gce_losses
from stages.train.logit_correction.correction import group_balanced
from stages.train.logit_correction.group_mixup import majority_weights, partners
from stages.train.logit_correction.spurious_prior import INSIDE_LOG, log_columns, updated_prior
from stages.train.logit_correction.two_branch import TwoBranch, train_two_branch


def test_generalised_cross_entropy_and_its_gradient() -> None:
    logits = torch.randn(6, 4, dtype=torch.float64, requires_grad=True)
    labels = torch.tensor([0, 1, 2, 3, 0, 1])
    told = logits.softmax(1)[range(6), labels]
    torch.testing.assert_close(gce_losses(logits, labels, 0.7), (1 - told**0.7) / 0.7)
    torch.testing.assert_close(gce_losses(logits, labels, 1.0), 1 - told)
    torch.testing.assert_close(gce_losses(logits, labels, 1e-6), -told.log(), rtol=1e-4, atol=1e-4)
    (mine,) = torch.autograd.grad(gce_losses(logits, labels, 0.7).sum(), logits)
    weighted = (told.detach() ** 0.7 * torch.nn.functional.cross_entropy(logits, labels, reduction="none")).sum()
    torch.testing.assert_close(mine, torch.autograd.grad(weighted, logits)[0])


def test_the_prior_is_the_formula_when_one_batch_is_everything() -> None:
    labels, shares = torch.tensor([0, 0, 0, 1, 1, 2]), torch.tensor([3, 2, 1]).double() / 6
    told = torch.rand(6, 3, dtype=torch.float64).softmax(1)
    prior = updated_prior(torch.full((3, 3), 1 / 3).double(), labels, told, momentum=0.0)
    joint = torch.stack([told[labels == y].sum(0) / 6 for y in range(3)])
    torch.testing.assert_close(prior * shares[:, None], joint)
    asked = torch.tensor([2, 0])
    torch.testing.assert_close(log_columns(prior, shares, asked), (joint / joint.sum(0) + INSIDE_LOG).log().T[asked])


def test_a_class_that_a_batch_lacks_keeps_its_row() -> None:
    before = torch.full((3, 3), 1 / 3)
    labels, told = torch.tensor([0, 0]), torch.tensor([[1.0, 0, 0], [0, 0, 1.0]])
    prior = updated_prior(before, labels, told, momentum=0.9)
    torch.testing.assert_close(prior[0], 0.9 * before[0] + 0.1 * torch.tensor([0.5, 0, 0.5]))
    assert torch.equal(prior[1:], before[1:])
    for _ in range(200):
        prior = updated_prior(prior, labels, told, momentum=0.9)
    torch.testing.assert_close(prior.sum(1), torch.ones(3))
    torch.testing.assert_close(prior[0], torch.tensor([0.5, 0, 0.5]))


def test_partners_are_the_minority_of_the_same_class() -> None:
    labels = np.repeat([0, 1, 2], 10)
    minority = np.zeros(30, bool)
    minority[[3, 4, 15]] = True
    found = partners(np.arange(30), labels, minority, np.random.default_rng(0))
    assert set(found[:10]) <= {3, 4} and set(found[10:20]) == {15}
    assert np.array_equal(labels[found], labels) and len(set(found[20:])) > 1


def test_mixing_comes_in_and_ends_at_a_minority_of_half_or_more() -> None:
    random = np.random.default_rng(0)
    assert majority_weights(1000, 0, 100, random).min() > 0.99
    late = majority_weights(1000, 100, 100, random)
    assert 0 <= late.min() < 0.01 and 0.49 < late.max() <= 0.5
    assert majority_weights(5, 400, 100, random).max() <= 0.5


def test_no_digit_is_in_two_splits_and_the_test_set_is_unbiased() -> None:
    images = [images.reshape(len(images), -1) for images, _ in splits().values()]
    whole = np.concatenate(images)
    assert len(whole) == 1797 and [len(part) for part in images] == [1000, 297, 500]
    assert len(np.unique(whole, axis=0)) == 1797
    asked = balanced("test", 0)
    assert all((asked.colours[asked.labels == y] == a).mean() == 0.1 for y in range(10) for a in range(10))
    task = biased(0.02, 0)
    assert (task.colours != task.labels).sum() == 180 and len(task.labels) == 9000


def test_logit_correction_is_above_cross_entropy() -> None:
    """A fifth of the published steps, on the validation split; all shares, five seeds: bench/logit_correction.py."""
    task, asked = biased(0.02, 0), balanced("validation", 0)
    with one_thread():
        plain = group_balanced(accuracies(single(task, 300, 0, 0.0, None), asked))
        corrected = group_balanced(accuracies(two_branch(task, replace(CHOSEN, steps=300), 0), asked))
    assert corrected > plain + 0.08


@pytest.mark.slow
@pytest.mark.parametrize("minority", MINORITIES)
def test_every_share_and_seed_of_the_published_table(minority: float) -> None:
    row = coloured_row(minority, SEEDS)
    assert all(ours > plain + 3 for ours, plain in zip(row["two_branch"], row["plain"], strict=True)), row


def test_equal_seeds_give_equal_bits_and_too_few_samples_are_refused() -> None:
    task = biased(0.05, 3)
    pixels, labels = torch.from_numpy(task.pixels[:300]), torch.from_numpy(task.labels[:300])
    runs = [train_two_branch(TwoBranch(steps=8, batch=64), pixels, labels, CLASSES, network, 5) for _ in range(2)]
    states = [run.network.state_dict() for run in runs]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert torch.equal(runs[0].prior, runs[1].prior)
    with pytest.raises(CuveeError, match="at least a batch of 301"):
        train_two_branch(TwoBranch(steps=1, batch=301), pixels, labels, CLASSES, network, 5)

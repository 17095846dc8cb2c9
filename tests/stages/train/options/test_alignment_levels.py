import numpy as np
import pytest
import torch

from schemas.errors import RecipeError
from stages.train.options.alignment_levels import AlignmentLevels, levels

SCORES = np.random.default_rng(0).normal(0.3, 0.1, 80)


def test_levels_are_buckets_of_equal_count() -> None:
    option = AlignmentLevels(count=8)
    made = option.start(16, 1, option.cuts(SCORES, [str(n) for n in range(80)]))
    found = levels(made, SCORES)
    assert np.bincount(found).tolist() == [10] * 8
    assert (np.sort(found) == found[np.argsort(SCORES)]).all()
    assert levels(made, np.array([-1.0, 1.0])).tolist() == [0, 7]


def test_the_vector_of_its_level_stands_right_before_an_image_s_tokens() -> None:
    made = AlignmentLevels(count=3).start(4, 1)
    tokens = torch.randn(2, 5, 4)
    shown = made.before(tokens, torch.tensor([2, 0]))
    assert shown.shape == (2, 6, 4) and torch.equal(shown[:, 1:], tokens)
    assert torch.equal(shown[:, 0], made.vectors[[2, 0]])
    shown.sum().backward()
    assert made.vectors.grad[1].abs().sum() == 0 < made.vectors.grad[0].abs().sum()


def test_without_a_level_it_is_the_highest() -> None:
    made = AlignmentLevels(count=3).start(4, 1)
    assert torch.equal(made.before(torch.zeros(2, 1, 4))[:, 0], made.vectors[[2, 2]])


def test_vectors_are_xavier_from_the_seed() -> None:
    first, again, other = (AlignmentLevels().start(64, seed).vectors for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)
    bound = (6 / (8 + 64)) ** 0.5
    assert 0.9 * bound < float(first.detach().abs().max()) <= bound


def test_cuts_are_saved() -> None:
    option = AlignmentLevels(count=4)
    made, again = option.start(4, 1, option.cuts(SCORES, [""] * 80)), option.start(4, 2)
    again.load_state_dict(made.state_dict())
    assert (levels(again, SCORES) == levels(made, SCORES)).all()


def test_samples_without_a_score_are_refused() -> None:
    with pytest.raises(RecipeError, match=r"2 of 3 have none, e\.g\. 'b'.*export: \{columns: \[clip_score\]\}"):
        AlignmentLevels().cuts(np.array([0.1, np.nan, np.nan]), ["a", "b", "c"])

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from stages.captioners.likelihood import TokenScores
from stages.train.options.cal import Cal, pooled

LENGTHS = st.lists(st.integers(1, 7), min_size=1, max_size=6)


def brute(values: list[float], lengths: list[int]) -> list[float]:
    found, start = [], 0
    for length in lengths:
        mine = values[start : start + length]
        found += [float(np.mean(mine[max(0, i - 1) : i + 2])) for i in range(length)]
        start += length
    return found


@given(LENGTHS, st.integers(0, 100))
def test_pooling_stays_inside_a_sample(lengths: list[int], seed: int) -> None:
    samples = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))
    values = torch.rand(len(samples), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    assert np.allclose(pooled(values, samples), brute(values.tolist(), lengths), atol=1e-12)


@given(LENGTHS)
def test_a_sample_s_weights_do_not_depend_on_the_others(lengths: list[int]) -> None:
    samples = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))
    seen, text = torch.randn(2, len(samples)) * 4
    weights = Cal().weights(seen, text, samples)
    for sample in range(len(lengths)):
        mine = samples == sample
        assert torch.equal(Cal().weights(seen[mine], text[mine], samples[mine]), weights[mine])


def test_weights_are_between_the_bounds_and_carry_no_gradient() -> None:
    seen = torch.tensor([9.0, -9.0, 2.0, 3.0], requires_grad=True)
    weights = Cal().weights(seen, torch.zeros(4), torch.tensor([0, 0, 1, 1]))
    assert weights.tolist() == [3.0, 3.0, 2.5, 2.5] and not weights.requires_grad


def test_weights_are_those_that_a_pool_is_scored_with() -> None:
    noise = np.random.default_rng(0)
    seen, text = noise.normal(0, 3, (2, 8))
    scores = TokenScores(seen, text, seen, text)
    mine = Cal().weights(torch.from_numpy(seen), torch.from_numpy(text), torch.zeros(8, dtype=torch.long))
    assert float(mine.mean()) == pytest.approx(scores.weight)


def test_bounds_in_the_wrong_order_are_refused() -> None:
    with pytest.raises(ValidationError, match="must be below"):
        Cal(lowest=5, highest=1)

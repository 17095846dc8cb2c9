from collections import Counter

import numpy as np
import pytest

from schemas.errors import CuveeError
from stages.train.sampler import IndexSampler

KEYS = [f"k{number}" for number in range(10)]


def test_every_epoch_visits_each_sample_once_in_another_order() -> None:
    sampler = IndexSampler(KEYS, 4, "3/0")
    seen = np.concatenate([sampler.ids(step) for step in range(5)])
    assert sorted(seen[:10]) == sorted(seen[10:]) == list(range(10))
    assert seen[:10].tolist() != seen[10:].tolist()


def test_a_step_needs_no_history() -> None:
    sampler, other = IndexSampler(KEYS, 4, "3/0"), IndexSampler(KEYS, 4, "3/0")
    forward = [sampler.ids(step).tolist() for step in range(8)]
    assert [other.ids(step).tolist() for step in (6, 1, 7)] == [forward[6], forward[1], forward[7]]
    assert [IndexSampler(KEYS, 4, "3/1").ids(step).tolist() for step in range(8)] != forward


def test_the_order_follows_the_keys_and_a_batch_may_exceed_the_samples() -> None:
    assert Counter(IndexSampler(KEYS[:3], 8, "3/0").ids(0).tolist()).most_common()[-1][1] == 2
    first = [KEYS[i] for i in IndexSampler(KEYS, 10, "3/0").ids(0)]
    fewer = [key for key in KEYS if key != "k4"]
    assert [fewer[i] for i in IndexSampler(fewer, 9, "3/0").ids(0)] == [key for key in first if key != "k4"]


def test_no_sample_is_refused() -> None:
    with pytest.raises(CuveeError, match="no sample to train on"):
        IndexSampler([], 4, "3/0")

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.errors import CuveeError
from stages.train.sampler import UNITS, IndexSampler, MixtureSampler, unit_shares

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


def sources(count: int, samples: int = 7) -> dict[str, list[str]]:
    return {f"s{number:02d}": [f"s{number}k{key}" for key in range(samples)] for number in range(count)}


def simplex(numbers: list[int]) -> np.ndarray:
    return np.array(numbers) / sum(numbers)


shares = st.lists(st.integers(0, 1000), min_size=1, max_size=9).filter(any)


@settings(max_examples=150, deadline=None)
@given(shares, st.integers(1, 9))
def test_no_source_is_ever_a_whole_sample_from_its_part(numbers: list[int], batch: int) -> None:
    weights = simplex(numbers)
    sampler = MixtureSampler(sources(len(numbers)), batch, "0")
    count = Counter()
    for step in range(30):
        for place, (name, _) in enumerate(sampler.ids(weights), start=1):
            count[name] += 1
            exact = weights * (step * batch + place)
            assert all(abs(count[name] - part) < 1 for name, part in zip(sampler.names, exact, strict=True))
    assert sampler.drawn == {name: count[name] for name in sampler.names}


@settings(max_examples=100, deadline=None)
@given(st.integers(2, 8).flatmap(lambda n: st.lists(st.lists(st.integers(0, 99), min_size=n, max_size=n).filter(any),
                                                    min_size=5, max_size=40)))  # fmt: skip
def test_weights_that_change_leave_nothing_over(path: list[list[int]]) -> None:
    sampler = MixtureSampler(sources(len(path[0])), 3, "0")
    exact = np.zeros(len(path[0]))
    for numbers in path:
        names = {name for name, _ in sampler.ids(simplex(numbers))}
        assert names <= {name for name, number in zip(sampler.names, numbers, strict=True) if number}
        exact += 3 * simplex(numbers)
        assert sum(sampler.state["owed"]) == 0
    units = np.array(sampler.state["owed"]) / UNITS
    assert np.array(list(sampler.drawn.values())) + units == pytest.approx(exact, abs=1e-6)


def test_a_share_too_small_for_one_batch_is_drawn_in_its_time() -> None:
    sampler = MixtureSampler(sources(2), 4, "0")
    noise = np.random.default_rng(0)
    for _ in range(500):
        share = noise.uniform(0, 0.02)
        sampler.ids(np.array([share, 1 - share]))
    assert sampler.drawn["s00"] == pytest.approx(20, abs=1.5)


def test_one_source_is_the_sampler_of_one_corpus_and_each_source_keeps_its_order() -> None:
    one, plain = MixtureSampler({"only": KEYS}, 4, "3/0"), IndexSampler(KEYS, 4, "3/0")
    for step in range(6):
        assert [place for _, place in one.ids(np.ones(1))] == plain.ids(step).tolist()
    both = MixtureSampler({"a": KEYS, "b": [f"x{key}" for key in KEYS]}, 5, "3/0")
    seen = [place for _ in range(8) for name, place in both.ids(np.array([0.5, 0.5])) if name == "a"]
    assert seen == [plain.at(place) for place in range(20)]


def test_a_mixture_goes_on_from_its_state() -> None:
    noise = np.random.default_rng(1)
    weights = noise.dirichlet(np.ones(3), 12)
    whole = MixtureSampler(sources(3), 5, "1")
    batches = [whole.ids(w) for w in weights]
    for cut in (0, 1, 7, 12):
        first, second = MixtureSampler(sources(3), 5, "1"), MixtureSampler(sources(3), 5, "1")
        before = [first.ids(w) for w in weights[:cut]]
        second.state = first.state
        assert before + [second.ids(w) for w in weights[cut:]] == batches
    assert whole.state != MixtureSampler(sources(3), 5, "1").state


@pytest.mark.parametrize("weights", [[0.5, 0.4], [1.5, -0.5], [1.0], [np.nan, 1.0], [0.3, 0.3, 0.4]])
def test_weights_off_the_simplex_are_refused(weights: list[float]) -> None:
    with pytest.raises(CuveeError, match="2 weights >= 0 that sum to 1"):
        MixtureSampler(sources(2), 4, "0").ids(np.array(weights))


def test_units_sum_exactly_and_sources_without_samples_are_refused() -> None:
    assert sum(unit_shares(np.full(7, 1 / 7), 7)) == UNITS
    with pytest.raises(CuveeError, match="'b' has no sample"):
        MixtureSampler({"a": KEYS, "b": []}, 4, "0")
    with pytest.raises(CuveeError, match="no source"):
        MixtureSampler({}, 4, "0")

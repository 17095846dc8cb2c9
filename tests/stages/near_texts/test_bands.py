import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from schemas.errors import RecipeError
from stages.near_texts import bands as module
from stages.near_texts.bands import band_keys, buckets, candidates, choose_bands, found_share
from stages.near_texts.shingles import scrambled


@given(st.floats(0.3, 1), st.floats(0.5, 0.99), st.integers(64, 4096))
@example(0.5, 0.95, 2048)
@example(0.7, 0.95, 4096)
@example(0.3, 0.95, 600)
def test_the_recall_is_reached_with_the_most_rows(threshold: float, recall: float, permutations: int) -> None:
    bands, rows = choose_bands(threshold, recall, permutations)
    assert bands * rows <= permutations
    assert found_share(threshold, bands, rows) >= recall - 1e-12
    if bands > 1:
        assert found_share(threshold, bands - 1, rows) < recall
    if rows < permutations:
        assert found_share(threshold, permutations // (rows + 1), rows + 1) < recall + 1e-12


def test_known_shares() -> None:
    assert found_share(0.8, 9, 13) == pytest.approx(0.40, abs=0.005)  # datasketch's choice for 0.8
    assert found_share(0.8, 14, 8) == pytest.approx(0.924, abs=0.0005)  # datatrove's
    assert choose_bands(0.8, 0.95, 128) == (13, 7)
    assert choose_bands(1.0, 0.95, 128) == (1, 128)


def test_too_few_permutations_are_refused() -> None:
    with pytest.raises(RecipeError, match="raise `permutations`"):
        choose_bands(0.2, 0.95, 8)


def test_keys_are_equal_where_bands_are() -> None:
    signature = np.random.Generator(np.random.Philox(3)).integers(0, 2, (12, 300), dtype=np.uint32)
    for band, keys in enumerate(band_keys(signature, 4, 3)):
        rows = signature[3 * band : 3 * band + 3]
        assert ((keys[:, None] == keys) == (rows[:, :, None] == rows[:, None]).all(axis=0)).all()


KEYS = st.lists(st.lists(st.integers(0, 5), min_size=3, max_size=3), max_size=25)


@given(KEYS, st.integers(1, 20), st.data())
def test_every_pair_that_shares_a_key_is_given_once(values: list[list[int]], block: int, data: st.DataObject) -> None:
    keys = np.array(values, np.uint64).reshape(-1, 3).T
    n = keys.shape[1]
    border = data.draw(st.integers(0, n))
    flags = np.array(data.draw(st.lists(st.booleans(), min_size=n, max_size=n)), bool)
    before, behind = flags & (np.arange(n) < border), flags & (np.arange(n) >= border)
    for earlier, later in [(flags, flags), (before, behind)]:
        expected = [
            (i, j) for j in range(n) for i in range(j) if earlier[i] and later[j] and (keys[:, i] == keys[:, j]).any()
        ]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(module, "BLOCK_PAIRS", block)
            found = list(candidates([buckets(scrambled(band)) for band in keys], earlier, later))
        assert [pair for first, second in found for pair in zip(first, second, strict=True)] == expected


def test_buckets_leave_out_what_is_alone() -> None:
    found = buckets(np.array([7, 3, 7, 9, 3, 7, 1], np.uint64) << np.uint64(60))
    assert found.places.tolist() == [1, 4, 0, 2, 5]
    assert found.starts().tolist() == [0, 0, 2, 2, 2]
    for n in (0, 1):
        assert len(buckets(np.zeros(n, np.uint64)).places) == 0


def test_buckets_of_many_keys_are_those_of_a_dictionary() -> None:
    noise = np.random.Generator(np.random.Philox(9))
    keys = scrambled(noise.integers(0, 40_000, 65_536).astype(np.uint64))
    together: dict[int, list[int]] = {}
    for place, key in enumerate(keys.tolist()):
        together.setdefault(key, []).append(place)
    found = buckets(keys)
    given = np.split(found.places, np.flatnonzero(np.diff(found.numbers)) + 1)
    assert sorted(each.tolist() for each in given) == sorted(each for each in together.values() if len(each) > 1)

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages import hamming
from stages.hamming import close_pairs, close_turned_pairs, closest, similarity
from tests.stages.parts import travelling

NEAR = st.builds(
    lambda base, flips: base ^ sum(1 << bit for bit in flips),
    st.sampled_from([0, 2**64 - 1, 0x0123456789ABCDEF]),
    st.sets(st.integers(0, 63), max_size=7),
)


def brute_pairs(hashes: np.ndarray, distance: int) -> list[tuple[int, int, int]]:
    apart = np.bitwise_count(hashes[:, None] ^ hashes[None, :])
    return [(i, j, int(apart[i, j])) for j in range(len(hashes)) for i in range(j) if apart[i, j] <= distance]


def triples(found: hamming.Pairs) -> list[tuple[int, int, int]]:
    return list(zip(found.first.tolist(), found.second.tolist(), found.distance.tolist(), strict=True))


def planted(n: int, seed: int) -> np.ndarray:
    """Random hashes, a full bucket of equals, and copies at distances 1 to 8."""
    noise = np.random.Generator(np.random.Philox(seed))
    hashes = noise.integers(0, 2**64, n, dtype=np.uint64)
    copies = noise.choice(n, n // 5, replace=False)
    for copy in copies:
        flips = noise.choice(64, noise.integers(1, 9), replace=False)
        hashes[copy] = hashes[noise.integers(0, n)] ^ np.bitwise_or.reduce(np.uint64(1) << flips.astype(np.uint64))
    hashes[noise.choice(n, n // 100, replace=False)] = hashes[0]
    return hashes


@given(st.lists(NEAR, max_size=40), st.integers(0, 16))
def test_every_close_pair_is_found_once(values: list[int], distance: int) -> None:
    hashes = np.array(values, np.uint64)
    assert triples(close_pairs(hashes, distance)) == brute_pairs(hashes, distance)


@pytest.mark.parametrize(("n", "distance"), [(50_000, 4), (5_000, 0), (5_000, 10)])
def test_fifty_thousand_hashes_equal_brute_force(n: int, distance: int) -> None:
    hashes = planted(n, seed=distance)
    found = close_pairs(hashes, distance)
    firsts, seconds = [], []
    for row in range(n):
        first = np.flatnonzero(np.bitwise_count(hashes[:row] ^ hashes[row]) <= distance)
        firsts.append(first)
        seconds.append(np.full(len(first), row))
    assert len(found.first) > n // 5
    assert (found.first == np.concatenate(firsts)).all() and (found.second == np.concatenate(seconds)).all()


def test_blocks_and_pieces_elsewhere_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    hashes = np.random.Generator(np.random.Philox(3)).integers(0, 2**10, 600, dtype=np.uint64)
    whole = triples(close_pairs(hashes, 2))
    assert whole and triples(close_pairs(hashes, 2, travelling)) == whole
    monkeypatch.setattr(hamming, "BLOCK_PAIRS", 16)
    assert triples(close_pairs(hashes, 2)) == whole


@given(st.lists(st.tuples(NEAR, NEAR, NEAR), max_size=15), st.integers(0, 8))
def test_turned_pairs_compare_an_upright_hash_with_any(values: list[tuple[int, int, int]], distance: int) -> None:
    hashes = np.array(values, np.uint64).reshape(-1, 3)
    expected = []
    for j in range(len(hashes)):
        for i in range(j):
            ways = [hashes[i, 0] ^ hashes[j], hashes[i] ^ hashes[j, 0]]
            least = int(np.bitwise_count(np.concatenate(ways)).min())
            expected += [(i, j, least)] if least <= distance else []
    assert triples(close_turned_pairs(hashes, distance)) == expected


@given(st.lists(NEAR, max_size=20), st.lists(NEAR, max_size=20), st.integers(0, 16))
def test_the_closest_reference_is_the_first_of_the_closest(one: list[int], other: list[int], distance: int) -> None:
    hashes, references = np.array(one, np.uint64), np.array(other, np.uint64)
    place, apart = closest(hashes, references, distance)
    for row, each in enumerate(hashes):
        distances = np.bitwise_count(each ^ references).tolist()
        near = [number for number in distances if number <= distance]
        assert place[row] == (distances.index(min(near)) if near else -1)
        assert apart[row] == (min(near) if near else distance + 1)


def test_similarity_is_the_share_of_equal_bits() -> None:
    assert similarity(np.array([0, 4, 64], np.uint8)).tolist() == [1.0, 0.9375, 0.0]

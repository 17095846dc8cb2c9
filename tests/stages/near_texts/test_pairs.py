import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.near_texts import Cut, MinHash, close_texts, jaccards
from stages.near_texts import pairs as module
from stages.near_texts.signatures import Scheme

CUTS = [Cut(), Cut("char", (2, 3)), Cut("word", (1,)), Cut("word", (1, 2))]
TEXTS = st.lists(st.text(st.sampled_from("abc "), max_size=10).map(lambda text: " ".join(text.split())), max_size=15)


def brute(one: str, other: str, cut: Cut) -> float:
    a, b = set(cut.spelled(one)), set(cut.spelled(other))
    return len(a & b) / max(len(a | b), 1)


@given(TEXTS, st.sampled_from(CUTS))
def test_the_index_is_exact(texts: list[str], cut: Cut) -> None:
    second, first = np.tril_indices(len(texts), -1)
    found = jaccards(texts, first, second, cut)
    assert found.tolist() == [brute(texts[i], texts[j], cut) for i, j in zip(first, second, strict=True)]


@given(TEXTS, st.sampled_from(CUTS), st.integers(1, 60))
def test_blocks_of_any_size_give_the_same(texts: list[str], cut: Cut, block: int) -> None:
    second, first = np.tril_indices(len(texts), -1)
    whole = jaccards(texts, first, second, cut)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "BLOCK_NGRAMS", block)
        assert (jaccards(texts, first, second, cut) == whole).all()


def test_memory_does_not_grow_with_the_pairs_of_long_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    """100 texts of 1,001 characters: their 4,950 pairs hold 9.9 million n-grams, 79 MB of hashes alone."""
    monkeypatch.setattr(module, "BLOCK_NGRAMS", 1 << 16)
    noise = np.random.Generator(np.random.Philox(7))
    texts = ["".join(map(chr, noise.integers(97, 123, 1_001))) for _ in range(100)]
    second, first = np.tril_indices(len(texts), -1)
    jaccards(texts[:2], first[:1], second[:1], Cut())  # what is made once
    tracemalloc.start()
    jaccards(texts, first, second, Cut())
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 20e6


@given(TEXTS, st.sampled_from(CUTS), st.sampled_from([0.5, 0.75, 1.0]))
def test_with_one_row_a_band_no_pair_is_missed(texts: list[str], cut: Cut, threshold: float) -> None:
    """A recall that needs more bands than there are minima leaves one row: who shares any minimum is compared."""
    everything = MinHash(threshold, cut, recall=1 - 1e-12, permutations=64)
    found = close_texts(texts, threshold, everything)
    pairs = list(zip(found.first.tolist(), found.second.tolist(), strict=True))
    expected = [
        (i, j)
        for j in range(len(texts))
        for i in range(j)
        if texts[i] and texts[j] and brute(texts[i], texts[j], cut) >= threshold
    ]
    assert pairs == expected
    assert found.jaccard.tolist() == [brute(texts[i], texts[j], cut) for i, j in pairs]


def test_the_threshold_itself_belongs_to_it() -> None:
    texts = ["a b c d e", "a b c d", "a b c"]
    found = close_texts(texts, 0.8, MinHash(0.8, Cut("word", (1,))))
    assert (found.first.tolist(), found.second.tolist(), found.jaccard.tolist()) == ([0], [1], [0.8])


def test_empty_texts_are_close_to_nothing() -> None:
    assert close_texts(["", "", "cat", "cat"], 0.8).first.tolist() == [2]
    assert close_texts([], 0.8).first.tolist() == []


@pytest.mark.parametrize(
    ("cut", "compat"), [*((cut, None) for cut in CUTS), (Cut(), "affine32"), (Cut("word", (2,)), "legacy")]
)
def test_recall_at_the_threshold(cut: Cut, compat: Scheme | None) -> None:
    """Sets of random words or letters with a Jaccard index just above 0.8."""
    noise = np.random.Generator(np.random.Philox(5))
    letters = [chr(code) for code in range(0x4E00, 0x9000)]
    texts = []
    for _ in range(300):
        drawn = noise.choice(letters, 60)
        joined = (" " if cut.unit == "word" else "").join
        texts += [joined(drawn), joined(drawn[:50])]
    first, second = np.arange(0, 600, 2), np.arange(1, 600, 2)
    index = jaccards(texts, first, second, cut)
    assert index.min() >= 0.8 and index.max() < 0.88
    found = close_texts(texts, 0.8, MinHash(0.8, cut, recall=0.9, compat=compat))
    assert len(found.first) >= 0.9 * 300
    assert (found.second == found.first + 1).all()

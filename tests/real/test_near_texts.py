"""Near-duplicates planted among real web alt-texts, at Jaccard indices that are known exactly."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from scipy.sparse import csr_matrix

from stages.near_texts import Cut, MinHash, close_texts, jaccards
from stages.normal_form import normal_form

THRESHOLD = 0.8
LETTERS = list("abcdefghijklmnopqrstuvwxyz")
ENOUGH = 300
"""Pairs that a recall of 0.99 is claimed of: without a miss among so many it is at least that, with 95 % confidence."""


@pytest.fixture(scope="module")
def texts(shared: Path) -> list[str]:
    """Distinct alt-texts of 20 and more characters."""
    found = pl.read_parquet(shared / "data" / "text" / "web_alt_text_10k.parquet")["TEXT"].drop_nulls()
    return sorted({text for text in map(normal_form, found) if len(text) >= 20})


def copies_of(texts: list[str], count: int) -> list[str]:
    """Copies of some of them with some characters replaced."""
    noise = np.random.Generator(np.random.Philox(11))
    copies = []
    for place in np.resize(noise.permutation(len(texts)), count).tolist():
        letters = list(texts[place])
        for at in noise.choice(len(letters), max(1, len(letters) // int(noise.integers(25, 90))), replace=False):
            letters[at] = noise.choice(LETTERS)
        copies.append(normal_form("".join(letters)))
    return copies


def close_by_counting(grams: list[set[str]], first: int) -> dict[tuple[int, int], float]:
    """The oracle: every pair (text, copy) with an index of at least the threshold; the copies begin at `first`."""
    numbers: dict[str, int] = {}
    columns = [numbers.setdefault(gram, len(numbers)) for found in grams for gram in found]
    sizes = np.array([len(found) for found in grams])
    holds = csr_matrix((np.ones(len(columns), np.int64), columns, np.r_[0, np.cumsum(sizes)]))
    shared = (holds[first:] @ holds[:first].T).tocoo()
    copy, text = shared.row + first, shared.col
    index = shared.data / (sizes[copy] + sizes[text] - shared.data)
    near = index >= THRESHOLD
    pairs = zip(text[near].tolist(), copy[near].tolist(), strict=True)
    return dict(zip(pairs, index[near].tolist(), strict=True))


@pytest.mark.parametrize(("cut", "count"), [(Cut(), 1500), (Cut("word", (1, 2)), 12_000)], ids=["characters", "words"])
def test_recall_and_precision_on_web_captions(texts: list[str], cut: Cut, count: int) -> None:
    every = texts + copies_of(texts, count)
    grams = [set(cut.spelled(text)) for text in every]
    true = close_by_counting(grams, len(texts))
    found = close_texts(every, THRESHOLD, MinHash(THRESHOLD, cut))
    pairs = dict(zip(zip(found.first.tolist(), found.second.tolist(), strict=True), found.jaccard, strict=True))
    far, near = ([pair in pairs for pair, index in true.items() if (index >= 0.9) == side] for side in (False, True))
    assert len(far) >= ENOUGH and len(near) >= ENOUGH
    print(f"recall {np.mean(far):.4f} of {len(far)} pairs below 0.9, {np.mean(near):.4f} of {len(near)} from there on")
    assert np.mean(far) >= 0.92 and np.mean(near) >= 0.99
    exact = [len(grams[i] & grams[j]) / len(grams[i] | grams[j]) for i, j in pairs]
    assert np.mean(np.array(exact) >= THRESHOLD) >= 0.999
    assert np.allclose(exact, list(pairs.values()), atol=0, rtol=1e-15)


def test_copies_at_the_threshold_itself_are_found(texts: list[str]) -> None:
    """Sets of real words with an index of exactly 0.8: eight words, and seven of them with another one."""
    words = sorted({word for text in texts for word in text.split() if word.isalpha()})
    noise = np.random.Generator(np.random.Philox(12))
    planted = []
    for _ in range(1000):
        chosen = noise.choice(words, 10, replace=False).tolist()
        planted += [" ".join(chosen[:9]), " ".join(chosen[:8] + chosen[9:])]
    cut = Cut("word", (1,))
    assert set(jaccards(planted[:2], np.array([0]), np.array([1]), cut)) == {0.8}
    found = close_texts(planted, THRESHOLD, MinHash(THRESHOLD, cut))
    pairs = set(zip(found.first.tolist(), found.second.tolist(), strict=True))
    assert np.mean([(at, at + 1) in pairs for at in range(0, len(planted), 2)]) >= 0.92

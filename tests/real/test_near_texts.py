"""Near-duplicates planted among real web alt-texts, at Jaccard indices that are known exactly."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from stages.near_texts import Cut, MinHash, close_texts, jaccards
from stages.normal_form import normal_form

COPIES = 1500
THRESHOLD = 0.8
LETTERS = list("abcdefghijklmnopqrstuvwxyz")


@pytest.fixture(scope="module")
def texts(shared: Path) -> list[str]:
    """Distinct alt-texts of 20 and more characters, then copies with some characters replaced."""
    found = pl.read_parquet(shared / "data" / "text" / "web_alt_text_10k.parquet")["TEXT"].drop_nulls()
    clean = sorted({text for text in map(normal_form, found) if len(text) >= 20})
    noise = np.random.Generator(np.random.Philox(11))
    copies = []
    for place in noise.choice(len(clean), COPIES, replace=False):
        letters = list(clean[place])
        for at in noise.choice(len(letters), max(1, len(letters) // int(noise.integers(25, 90))), replace=False):
            letters[at] = noise.choice(LETTERS)
        copies.append(normal_form("".join(letters)))
    return clean + copies


@pytest.mark.parametrize("cut", [Cut(), Cut("word", (1, 2))], ids=["characters", "words"])
def test_recall_and_precision_on_web_captions(texts: list[str], cut: Cut) -> None:
    # The oracle: 150 copies against every text, by their exact index.
    copies = np.arange(len(texts) - COPIES, len(texts))
    everything = np.arange(len(texts) - COPIES)
    true = {}
    for copy in copies[:150]:
        index = jaccards(texts, everything, np.full(len(everything), copy), cut)
        true |= {(int(i), int(copy)): float(index[i]) for i in np.flatnonzero(index >= THRESHOLD)}
    found = close_texts(texts, THRESHOLD, MinHash(THRESHOLD, cut))
    pairs = dict(zip(zip(found.first.tolist(), found.second.tolist(), strict=True), found.jaccard, strict=True))
    assert len(true) > 15
    assert np.mean([pair in pairs for pair, index in true.items() if index < 0.9]) >= 0.92
    assert np.mean([pair in pairs for pair, index in true.items() if index >= 0.9]) >= 0.99
    grams = {place: set(cut.spelled(texts[place])) for pair in pairs for place in pair}
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

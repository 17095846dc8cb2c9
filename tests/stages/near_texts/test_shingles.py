import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.near_texts import shingles as module
from stages.near_texts.shingles import Cut, blocks, shingles
from stages.normal_form import normal_form

CUTS = [Cut(), Cut("char", (1,)), Cut("char", (3, 5)), Cut("word", (2,)), Cut("word", (1, 2))]
TEXTS = st.lists(st.text(st.sampled_from("ab \u00e9\u732b\U0001f431"), max_size=12).map(normal_form), max_size=12)


@given(TEXTS, st.sampled_from(CUTS))
def test_hashes_are_equal_where_ngrams_are(texts: list[str], cut: Cut) -> None:
    found = shingles(texts, cut)
    spelled = [cut.spelled(text) for text in texts]
    assert found.counts.tolist() == [len(ngrams) for ngrams in spelled]
    flat = [(ngram, len(ngram.split())) for ngrams in spelled for ngram in ngrams]
    hashes = found.hashes.tolist()
    assert len(set(hashes)) == len({ngram for ngram, _ in flat})
    assert len(set(zip(hashes, flat, strict=True))) == len(set(hashes))
    assert found.owners().tolist() == [at for at, ngrams in enumerate(spelled) for _ in ngrams]


def test_what_is_spelled() -> None:
    assert Cut("char", (4,)).spelled("a cats") == ["a ca", " cat", "cats"]
    assert Cut("word", (2,)).spelled("a cat sat") == ["a cat", "cat sat"]
    assert Cut("word", (1, 2)).spelled("a cat") == ["a", "cat", "a cat"]
    assert Cut("char", (3, 5)).spelled("cats") == ["cat", "ats"]


@pytest.mark.parametrize("cut", CUTS)
def test_short_texts_neither_vanish_nor_collapse(cut: Cut) -> None:
    texts = ["", "a", "b", "ab", "a b", "a", "\u732b"]
    sets = [frozenset(np.split(each.hashes, [])[0].tolist()) for each in (shingles([text], cut) for text in texts)]
    assert [bool(found) for found in sets] == [False] + [True] * 6
    assert sets[1] == sets[5]
    assert all(not sets[at] & sets[other] for at, other in [(1, 2), (1, 6), (2, 6)])
    assert len(set(sets)) == 6


def test_a_text_has_one_hash_whatever_stands_beside_it() -> None:
    texts = ["a cat on a mat", "dog", "", "a cat on a mat"]
    for cut in CUTS:
        together, alone = shingles(texts, cut), [shingles([text], cut) for text in texts]
        assert together.hashes.tolist() == [each for one in alone for each in one.hashes.tolist()]


def test_blocks_cover_all_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BLOCK_CHARACTERS", 5)
    texts = ["abc", "", "ab", "a", "abcdefgh", "", "a"]
    cut = [texts[block] for block in blocks(texts)]
    assert cut == [["abc", "", "ab"], ["a"], ["abcdefgh"], ["", "a"]]
    assert list(blocks([])) == []

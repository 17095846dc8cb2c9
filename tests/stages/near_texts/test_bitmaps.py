import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.near_texts import Cut, bitmaps, jaccards
from stages.near_texts.bitmaps import Bitmaps
from stages.near_texts.shingles import shingles

CUTS = [Cut(), Cut("char", (2, 3)), Cut("word", (1,)), Cut("word", (1, 2))]
TEXTS = st.lists(st.text(st.sampled_from("abc "), max_size=12).map(lambda text: " ".join(text.split())), max_size=12)


def every_pair(n: int) -> tuple[np.ndarray, np.ndarray]:
    second, first = np.tril_indices(n, -1)
    return first, second


@given(TEXTS, st.sampled_from(CUTS), st.floats(0.3, 1), st.integers(1, 5))
def test_no_pair_that_is_close_is_ruled_out(texts: list[str], cut: Cut, threshold: float, block: int) -> None:
    first, second = every_pair(len(texts))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bitmaps, "BLOCK_TEXTS", block)
        patch.setattr(bitmaps, "BLOCK_PAIRS", block)
        may = Bitmaps.of(shingles(texts, cut)).may_reach(threshold, first, second)
    assert may[jaccards(texts, first, second, cut) >= threshold].all()


@given(TEXTS, st.sampled_from(CUTS))
def test_nor_one_at_the_threshold_itself(texts: list[str], cut: Cut) -> None:
    first, second = every_pair(len(texts))
    found = Bitmaps.of(shingles(texts, cut))
    for at, index in enumerate(jaccards(texts, first, second, cut)):
        assert index == 0 or found.may_reach(float(index), first[at : at + 1], second[at : at + 1]).all()


def test_parts_are_joined_and_chosen_from() -> None:
    texts = ["a red house", "", "the sea", "a red horse"]
    whole = Bitmaps.of(shingles(texts, Cut()))
    parts = Bitmaps.joined([Bitmaps.of(shingles(texts[:1], Cut())), Bitmaps.of(shingles(texts[1:], Cut()))])
    assert (parts.bits == whole.bits).all() and (parts.sizes == whole.sizes).all()
    chosen = whole.at(np.array([3, 0]))
    assert (chosen.bits == whole.bits[[3, 0]]).all() and chosen.sizes.tolist() == [9, 9]


def test_of_real_captions_few_are_left(shared: Path) -> None:
    """Pairs of an index of 0.3 to 0.6, as bands let many pass; what is farther apart is ruled out more surely."""
    lines = (shared / "data/text/caption_triples_10k.jsonl").read_text().splitlines()[:2_000]
    for name in ("laion_2b", "laion_coco", "capsfuion_official"):
        texts = [json.loads(line)[name].lower() for line in lines]
        first, second = every_pair(len(texts))
        index = jaccards(texts, first[:200_000], second[:200_000], Cut())
        near = np.flatnonzero((index >= 0.3) & (index < 0.6))
        may = Bitmaps.of(shingles(texts, Cut())).may_reach(0.7, first[near], second[near])
        assert len(near) >= 3 and may.mean() <= 0.05, name

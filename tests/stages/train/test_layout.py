import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.errors import ContractError, CuveeError
from stages.train.layout import NONE, PADDING, Layout, Said, lay_out
from stages.train.packing import first_fit_decreasing, packed, shared_out

SIZES = st.lists(st.integers(1, 40), min_size=1, max_size=60)
SAID = [
    Said([10, 11, 12], 0, between=(1,)),
    Said([20], 1, before=(7, 8), between=(9,)),
    Said([30, 31], 0, between=(1,)),
    Said([40, 41, 42, 43], None, between=(1,)),
]


def sees(layout: Layout, query: tuple[int, int], key: tuple[int, int]) -> bool:
    """By the definition, one pair of places at a time."""
    if query[0] != key[0] or key[1] > query[1] or layout.documents[query] == PADDING:
        return False
    return layout.documents[query] == layout.documents[key] and layout.branches[key] in (0, layout.branches[query])


def context(layout: Layout, label: int) -> list[tuple[int, int, int]]:
    """What a label is predicted from: (token, visual token, position) of every place seen."""
    width = layout.tokens.shape[1]
    row, column = divmod(int(layout.places[label]), width)
    seen = [(row, key) for key in range(width) if sees(layout, (row, column), (row, key))]
    return [(int(layout.tokens[place]), int(layout.visual[place]), int(layout.positions[place])) for place in seen]


def test_one_caption_a_row() -> None:
    found = lay_out(SAID, 2)
    assert found.tokens.tolist() == [
        [0, 0, 1, 10, 11], [7, 8, 0, 0, 9], [0, 0, 1, 30, 0], [1, 40, 41, 42, 0],
    ]  # fmt: skip
    assert found.visual[:, :4].tolist() == [[0, 1, -1, -1], [-1, -1, 2, 3], [0, 1, -1, -1], [-1] * 4]
    assert found.labels.tolist() == [10, 11, 12, 20, 30, 31, 40, 41, 42, 43]
    assert found.samples.tolist() == [0, 0, 0, 1, 2, 2, 3, 3, 3, 3]
    assert (found.places % 5).tolist() == [2, 3, 4, 4, 2, 3, 0, 1, 2, 3]
    assert found.is_plain and found.efficiency == 18 / 20


@pytest.mark.parametrize(("pack", "share"), [(12, False), (None, True), (12, True), (18, True)])
def test_every_label_is_predicted_from_what_it_is_predicted_from_alone(pack: int | None, share: bool) -> None:
    alone, together = lay_out(SAID, 2), lay_out(SAID, 2, pack=pack, share=share)
    assert not together.is_plain
    assert (together.labels == alone.labels).all() and (together.samples == alone.samples).all()
    for label in range(len(alone.labels)):
        assert context(together, label) == context(alone, label)


def test_captions_of_one_image_share_it() -> None:
    said = [Said([5] * 10, 0, between=(1,)) for _ in range(4)]
    assert (lay_out(said, 30).documents != PADDING).sum() == 4 * (31 + 9)
    assert (lay_out(said, 30, share=True).documents != PADDING).sum() == 31 + 4 * 9
    other = [*said, Said([5] * 10, 0, between=(2,))]
    assert len(lay_out(other, 30, share=True).tokens) == 2, "another template, another beginning"


def test_text_below_the_layer_where_images_enter() -> None:
    found = lay_out(SAID, 2, pack=12, share=True)
    text, left = found.without(found.visual != NONE, renumber=True)
    alone = lay_out([Said(one.ids, None, between=(*one.before, *one.between)) for one in SAID], 2)
    assert text.visual.max() == NONE and left.sum() == (text.documents != PADDING).sum()
    for label in range(len(found.labels)):
        assert context(text, label) == context(alone, label), "positions are counted without the images"
    assert (found.tokens[left] == text.tokens[text.documents != PADDING]).all(), "in the same order"


def test_text_alone_keeps_the_positions_it_has_behind_the_image() -> None:
    found = lay_out(SAID, 2, pack=12, share=True)
    blind = found.without_visual(3)
    for label in range(len(found.labels)):
        assert context(blind, label) == [place for place in context(found, label) if place[1] == NONE]
    without_begin = lay_out([Said([10, 11], 0), Said([12], 0)], 2, share=True).without_visual(3)
    assert context(without_begin, 0) == context(without_begin, 2) == [(3, NONE, 1)]
    assert context(without_begin, 1) == [(3, NONE, 1), (10, NONE, 2)]


def test_a_place_that_predicts_cannot_be_left_out() -> None:
    found = lay_out([Said([10, 11], 0)], 2)
    with pytest.raises(ContractError, match="cannot be left out"):
        found.without(found.visual != NONE, renumber=True)
    with pytest.raises(ContractError, match="at least one token"):
        lay_out([Said([], 0)], 2)
    with pytest.raises(ContractError, match="a place before"):
        lay_out([Said([1], None)], 2)


@given(SIZES, st.integers(40, 200))
def test_packing_keeps_every_document_once_and_no_row_overflows(sizes: list[int], length: int) -> None:
    rows = packed(sizes, length)
    assert sorted(document for row in rows for document in row) == list(range(len(sizes)))
    assert max(sum(sizes[document] for document in row) for row in rows) <= length
    plain = first_fit_decreasing(sizes, length)
    assert len(rows) * max(sum(sizes[d] for d in row) for row in rows) <= len(plain) * length
    assert packed(sizes, length) == rows


def test_first_fit_decreasing_by_hand() -> None:
    assert first_fit_decreasing([4, 8, 1, 4, 2, 1], 10) == [[1, 4], [0, 3, 2, 5]]
    with pytest.raises(CuveeError, match="takes up 11 places"):
        first_fit_decreasing([11], 10)


@pytest.mark.parametrize("samples", [32, 256, 1000])
@pytest.mark.parametrize("visual", [32, 144, 576])
def test_rows_are_full(samples: int, visual: int) -> None:
    """Captions of 10 to 60 tokens behind compressed images, as pools have them; from 32 samples a step on."""
    lengths = np.random.default_rng(samples + visual).gamma(4.0, 7.0, samples).clip(4, 120).astype(int)
    said = [Said([5] * int(length), image, between=(1,)) for image, length in enumerate(lengths)]
    assert lay_out(said, visual, pack=4096).efficiency >= 0.95
    assert lay_out(said, visual).efficiency < 0.95


def test_shared_out_by_hand() -> None:
    assert shared_out([4, 8, 1, 4, 2, 1], 2) == [[1, 4], [0, 3, 2, 5]]
    assert shared_out([6, 6, 6, 5, 5, 5], 3) == [[0, 3], [1, 4], [2, 5]]

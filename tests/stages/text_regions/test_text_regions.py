"""Text regions on pictures out of nothing with words painted in, none of which the scorer was fitted on."""

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter

from bench.cases.leaves import leaves
from bench.cases.lettering import face, lettered
from bench.cases.things import rows_of_things
from stages.text_regions import text_boxes, text_mask
from stages.text_regions.chains import FEATURES, chains, features
from stages.text_regions.components import letter_like
from stages.text_regions.regions import MOST_PIXELS, cover, text_rows
from stages.text_regions.row_scorer import HIDDEN, HIDDEN_BIAS, OUT, OUT_BIAS, text_likeness

PLAIN = 220
"""Grey level of the ground of simple cases."""


def noise(number: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(number))


def page(words: str, *, size: int = 20) -> np.ndarray:
    picture = Image.new("L", (320, 160), PLAIN)
    ImageDraw.Draw(picture).text((30, 40), words, fill=10, font=face("DejaVuSans", size))
    return np.asarray(picture)


def test_words_are_covered_and_the_rest_is_not() -> None:
    grey = page("fresh market price")
    ink, mask = grey < 100, text_mask(grey)
    assert mask[ink].mean() > 0.95
    rows, columns = np.flatnonzero(ink.any(axis=1)), np.flatnonzero(ink.any(axis=0))
    outside = mask.copy()
    outside[rows[0] - 8 : rows[-1] + 9, columns[0] - 8 : columns[-1] + 9] = False
    assert not outside.any()


@pytest.mark.parametrize("turn", ["light on dark", "dark on light"])
@pytest.mark.parametrize("size", [10, 16, 40])
def test_either_polarity_and_many_sizes(turn: str, size: int) -> None:
    grey = page("summer sale", size=size)
    grey = 255 - grey if turn == "light on dark" else grey
    ink = np.abs(grey.astype(int) - int(np.median(grey))) > 100
    assert text_mask(grey)[ink].mean() > 0.8


def test_two_lines_far_apart_are_two_boxes() -> None:
    grey = np.vstack([page("first line"), page("the second one")])
    boxes = text_boxes(text_mask(grey))
    assert len(boxes) == 2 and boxes[0, 3] < 160 < boxes[1, 1]
    assert text_boxes(np.zeros((5, 6), bool)).shape == (0, 4)


def test_a_box_is_the_edge_of_its_region() -> None:
    mask = np.zeros((20, 30), bool)
    mask[3:7, 10:22] = True
    assert text_boxes(mask).tolist() == [[10, 3, 22, 7]]


def test_a_row_off_the_level_is_covered_letter_by_letter() -> None:
    """Its bounding box would take several times what the letters do."""
    letters = Image.new("L", (360, 360), 0)
    ImageDraw.Draw(letters).text((40, 165), "limited edition", fill=255, font=face("DejaVuSans", 26))
    cover_of_ink = np.asarray(letters.rotate(15, Image.Resampling.BICUBIC))
    grey = (PLAIN - cover_of_ink.astype(float) * (PLAIN - 10) / 255).astype(np.uint8)
    ink, mask = cover_of_ink > 128, text_mask(grey)
    rows, columns = np.flatnonzero(ink.any(axis=1)), np.flatnonzero(ink.any(axis=0))
    assert mask[ink].mean() > 0.9
    assert mask.sum() < 0.7 * (rows[-1] - rows[0]) * (columns[-1] - columns[0])


def test_a_large_picture_is_read_at_a_bounded_size_and_answered_at_its_own() -> None:
    small = page("open today", size=24)
    large = np.asarray(Image.fromarray(small).resize((1600, 800), Image.Resampling.BICUBIC))
    assert large.size > MOST_PIXELS
    mask, ink = text_mask(large), large < 100
    assert mask.shape == large.shape
    assert mask[ink].mean() > 0.95 and mask.mean() < 2 * text_mask(small).mean()


@pytest.mark.parametrize("shape", [(1, 1), (7, 300), (300, 7), (8, 8), (1, 5000)])
def test_too_small_for_text(shape: tuple[int, int]) -> None:
    assert text_rows(np.zeros(shape, np.uint8)) == []
    assert not text_mask(noise(1).integers(0, 256, shape, dtype=np.uint8)).any()


def test_the_scorer_is_the_network_that_its_numbers_say() -> None:
    inputs = noise(2).normal(size=(9, len(FEATURES)))
    for row, found in zip(inputs, text_likeness(inputs), strict=True):
        sums = [float(sum(unit * row)) + bias for unit, bias in zip(HIDDEN, HIDDEN_BIAS, strict=True)]
        assert found == pytest.approx(1 / (1 + np.exp(-(float(sum(np.tanh(sums) * OUT)) + OUT_BIAS[0]))))


def test_features_of_a_row_of_equal_bars() -> None:
    """Ten bars of 4 x 12 px, 6 px apart: what can be worked out by hand."""
    picture = np.full((60, 240), 200, np.uint8)
    for number in range(10):
        picture[20:32, 20 + 10 * number : 24 + 10 * number] = 0
    rows = next(found for found in map(chains, letter_like(picture)) if len(found.row))
    told = dict(zip(FEATURES, features(rows)[0], strict=True))
    assert told["letters"] == pytest.approx(np.log(10)) and told["height"] == pytest.approx(np.log(12))
    assert told["length"] == pytest.approx(np.log((10 * 9 + 4) / 12))
    assert told["fill"] == 1 and told["heights"] == told["widths"] == told["greys"] == 0
    assert told["stroke"] == pytest.approx(np.log(2 * 48 / 32 / 12)) and told["off_line"] == pytest.approx(np.log(0.02))


def test_cover_takes_each_letter_and_the_next_with_a_thin_rim() -> None:
    mask = np.zeros((40, 60), bool)
    cover(mask, np.array([[10.0, 10, 15, 20], [20, 12, 26, 22]]))
    expected = np.zeros_like(mask)
    expected[8:24, 8:28] = True  # a seventh of 10 px, rounded up
    assert (mask == expected).all()


def test_words_are_told_from_rows_of_other_things() -> None:
    """On soft pictures; `bench/detectors.py` measures it on photos."""

    def soft(number: int) -> Image.Image:
        return leaves(noise(number), 200).filter(ImageFilter.GaussianBlur(2.5))

    def found(picture: Image.Image) -> bool:
        return bool(text_mask(np.asarray(picture.convert("L"))).mean() > 0.005)

    worded = [found(lettered(soft(1000 + number), noise(2000 + number))[0]) for number in range(12)]
    bare = [found(soft(3000 + number)) for number in range(6)]
    things = [found(rows_of_things(soft(4000 + number), noise(5000 + number))) for number in range(6)]
    assert sum(worded) >= 10 and sum(bare) == 0 and sum(things) <= 1

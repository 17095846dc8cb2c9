"""Each detector against its definition done another way, and on pictures whose answer is known."""

import io
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image, ImageDraw, ImageFilter, ImageOps
from scipy import ndimage, stats

from bench.cases import damage
from bench.cases.collages import collage
from bench.cases.leaves import leaves
from bench.cases.lettering import lettered
from bench.cases.screens import screen
from stages.quality.image_detectors import Detections, detect
from stages.quality.image_detectors.analysis import scaled_to
from stages.quality.image_detectors.borders import Frame, border_share, picture_inside
from stages.quality.image_detectors.collage import collage_likeness, seams
from stages.quality.image_detectors.constant_share import TONE_LEVELS, constant_share, largest_tone
from stages.quality.image_detectors.entropy import entropy_bits
from stages.quality.image_detectors.screenshot import PIECES, screenshot_likeness
from stages.quality.image_detectors.sharpness import sharpness
from stages.text_regions import MOST_PIXELS, reduced

GREY = arrays(np.uint8, st.tuples(st.integers(1, 20), st.integers(1, 20)))
LAPLACIAN = np.array([[0, 1, 0], [1, -4, 1], [0, 1, 0]])


def noise(number: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(number))


def encoded(picture: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def grey(picture: Image.Image) -> np.ndarray:
    return np.asarray(picture.convert("L"))


class TestSharpness:
    def test_it_is_the_variance_of_the_laplacian(self) -> None:
        levels = noise(1).integers(0, 256, (224, 224), dtype=np.uint8)
        expected = ndimage.convolve(levels.astype(float), LAPLACIAN, mode="nearest").var()
        assert sharpness(levels) == pytest.approx(expected)

    def test_other_sizes_are_brought_to_one_first(self) -> None:
        picture = leaves(noise(2), 448)
        whole, half = grey(picture), grey(picture.resize((224, 224), Image.Resampling.HAMMING))
        assert scaled_to(whole, 224 * 224).shape == (224, 224)
        assert sharpness(whole) == pytest.approx(sharpness(half), rel=0.05)
        assert scaled_to(whole[:100, :400], 224 * 224).shape == (112, 448)

    def test_it_falls_with_every_blur(self) -> None:
        picture = leaves(noise(3), 224)
        values = [sharpness(grey(damage.gaussian_blurred(picture, sigma))) for sigma in (0, 0.7, 1.5, 3, 6)]
        assert values == sorted(values, reverse=True) and values[0] > 20 * values[-1]

    @given(st.integers(0, 255), st.integers(1, 300), st.integers(1, 300))
    @settings(max_examples=20)
    def test_one_colour_has_none(self, level: int, height: int, width: int) -> None:
        assert sharpness(np.full((height, width), level, np.uint8)) == 0


class TestTones:
    @given(GREY)
    def test_entropy_is_that_of_the_histogram(self, levels: np.ndarray) -> None:
        counts = np.unique(levels, return_counts=True)[1]
        assert entropy_bits(levels) == pytest.approx(stats.entropy(counts, base=2), abs=1e-9)

    def test_entropy_s_ends(self) -> None:
        assert entropy_bits(np.arange(256, dtype=np.uint8)[None]) == 8
        assert entropy_bits(np.array([[7, 200]], np.uint8)) == 1

    @given(GREY)
    def test_the_largest_tone_is_that_of_every_window(self, levels: np.ndarray) -> None:
        windows = [np.mean((levels >= low) & (levels < low + TONE_LEVELS)) for low in range(257 - TONE_LEVELS)]
        assert largest_tone(levels) == pytest.approx(max(windows))

    def test_noise_on_one_colour_is_constant_and_two_colours_are_not(self) -> None:
        speckled = np.clip(noise(4).normal(128, 6, (200, 300)), 0, 255).astype(np.uint8)
        assert largest_tone(speckled) < 0.9 and constant_share(speckled) > 0.999
        speckled[:, :150] += 60
        assert constant_share(speckled) == pytest.approx(0.5, abs=0.02)


class TestBorders:
    @pytest.mark.parametrize(
        ("top", "bottom", "left", "right"),
        [(0, 0, 0, 0), (20, 20, 0, 0), (0, 0, 15, 31), (9, 30, 9, 9), (5, 0, 0, 0), (2, 2, 2, 2)],
    )
    @pytest.mark.parametrize("tone", [0, 128, 255])
    def test_a_frame_is_measured_to_the_pixel(self, top: int, bottom: int, left: int, right: int, tone: int) -> None:
        picture = noise(5).integers(0, 256, (120, 90), dtype=np.uint8)
        whole = np.pad(picture, ((top, bottom), (left, right)), constant_values=tone)
        assert picture_inside(whole) == Frame(top, top + 120, left, left + 90)
        assert border_share(whole) == pytest.approx(1 - picture.size / whole.size)

    def test_what_only_looks_like_one(self) -> None:
        """A round thing on white, a slope of tones, one colour, a thin line."""
        product = Image.new("L", (200, 200), 255)
        ImageDraw.Draw(product).ellipse((40, 40, 160, 160), fill=40)
        slope = np.broadcast_to(np.linspace(0, 255, 200).astype(np.uint8), (100, 200))
        lined = noise(6).integers(0, 256, (80, 80), dtype=np.uint8)
        lined[0] = 0
        for picture in (grey(product), slope, np.full((50, 60), 9, np.uint8), lined):
            assert border_share(picture) == 0


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_turn_told_is_the_one_that_a_viewer_makes(orientation: int, kind: str) -> None:
    """Done by hand, the told mirror and then the told turn give what Pillow's own transposition gives."""
    picture = Image.fromarray(noise(7).integers(0, 256, (6, 9, 3), dtype=np.uint8)).resize((72, 48))
    exif = Image.Exif()
    exif[0x0112] = orientation
    written = encoded(picture, kind, exif=exif)
    told = detect(written)
    assert told.exif_rotation_degrees is not None
    mirrored = ImageOps.mirror(picture) if told.exif_mirrored else picture
    by_hand = mirrored.rotate(-told.exif_rotation_degrees, expand=True)
    opened = Image.open(io.BytesIO(encoded(picture, "PNG", exif=exif)))
    assert by_hand.tobytes() == ImageOps.exif_transpose(opened).tobytes()


class TestCollages:
    @given(st.integers(0, 10_000))
    @settings(max_examples=25)
    def test_a_seam_is_where_the_strongest_step_nearby_lies_in_most_rows(self, seed: int) -> None:
        levels = noise(seed).integers(0, 256, (12, 40), dtype=np.uint8)
        found = seams(levels)
        margin = int(0.08 * 39) + 1
        for x in range(39):
            steps = np.abs(levels[:, 1:].astype(int) - levels[:, :-1])
            near = steps[:, max(0, x - 3) : x + 4].max(axis=1)
            share = np.mean((steps[:, x] == near) & (steps[:, x] > 6))
            assert found[x] == (0 if x < margin or x >= 39 - margin else pytest.approx(share))

    def test_two_pictures_side_by_side_and_one_alone(self) -> None:
        one, other = (grey(leaves(noise(number), 160)) for number in (8, 9))
        for stacked in (np.hstack([one, 255 - other]), np.vstack([one, 255 - other])):
            assert collage_likeness(stacked) > 0.5
        assert max(collage_likeness(one), collage_likeness(other)) < 0.3

    def test_a_panel_a_product_and_what_is_too_small_are_none(self) -> None:
        one = grey(leaves(noise(10), 160))
        assert collage_likeness(np.hstack([one, np.full((160, 100), 250, np.uint8)])) < 0.5
        assert collage_likeness(np.hstack([one[:40], 255 - one[:40]])) == 0

    def test_collages_stand_above_their_parts(self) -> None:
        parts = [leaves(noise(20 + number), 160) for number in range(9)]
        made = [collage_likeness(reduced(grey(collage(parts, noise(40 + number))))) for number in range(8)]
        assert np.median(made) > 0.7 > max(collage_likeness(grey(part)) for part in parts)


class TestScreenshots:
    def test_the_formula(self) -> None:
        levels = np.repeat(np.arange(24, dtype=np.uint8), 5)[None]
        assert screenshot_likeness(levels, 0) == 0
        assert screenshot_likeness(levels, PIECES) == pytest.approx(0.5 * 0.5)
        assert screenshot_likeness(levels[:, :60], 3 * PIECES) == pytest.approx(0.75)

    def test_screens_stand_above_pictures_and_above_pictures_with_words(self) -> None:
        def likeness(picture: Image.Image) -> float:
            return float(detect(encoded(picture)).screenshot_likeness or 0)

        pictures = [leaves(noise(60 + number), 192) for number in range(4)]
        screens = [likeness(screen(noise(70 + number), picture)) for number, picture in enumerate(pictures)]
        worded = [likeness(lettered(picture, noise(80 + number))[0]) for number, picture in enumerate(pictures)]
        assert np.median(screens) > 0.3 and max(map(likeness, pictures)) < 0.05 and max(worded) < 0.1


def test_a_large_picture_is_reduced_and_a_small_one_is_left() -> None:
    small = noise(11).integers(0, 256, (30, 40), dtype=np.uint8)
    assert reduced(small) is small
    large = reduced(np.zeros((3000, 1000), np.uint8))
    assert 0.99 * MOST_PIXELS < large.size <= MOST_PIXELS and reduced(large) is large
    assert large.shape[0] == pytest.approx(3 * large.shape[1], abs=3)


def test_format_and_size_of_the_file_hardly_matter() -> None:
    picture = leaves(noise(12), 300)
    base = detect(encoded(picture))
    assert base.reason is None
    for other in (encoded(picture, "JPEG", quality=95), encoded(picture, "WEBP", lossless=True)):
        found = detect(other)
        assert found.entropy_bits == pytest.approx(base.entropy_bits, abs=0.1)
        assert found.sharpness == pytest.approx(base.sharpness, rel=0.1)
        assert found.border_share == base.border_share == 0
    large = detect(encoded(picture.resize((1800, 1800), Image.Resampling.BICUBIC), "JPEG", quality=95))
    assert large.constant_share == pytest.approx(base.constant_share, abs=0.05)


@pytest.mark.parametrize("size", [(1, 1), (1, 700), (700, 1), (2, 2), (3, 47), (20_000, 1)])
def test_odd_shapes_are_measured(size: tuple[int, int]) -> None:
    found = detect(encoded(Image.new("RGB", size, (200, 30, 30))))
    assert found == Detections(0.0, 1.0, 0.0, 0.0, 0, False, 0.0, 0.0, 0.0)


def test_a_blurred_screenshot_with_a_frame_has_all_of_it() -> None:
    """Detectors look at one picture each for themselves."""
    framed = ImageOps.expand(screen(noise(90), leaves(noise(91), 200)), 60, (0, 0, 0))
    found = detect(encoded(framed.filter(ImageFilter.GaussianBlur(0.6))))
    assert found.border_share is not None and found.border_share > 0.1
    assert found.text_coverage is not None and found.text_coverage > 0.01

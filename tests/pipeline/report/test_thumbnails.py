import base64
import io
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from pipeline.report.thumbnails import BUDGET_BYTES, thumbnail


def decoded(uri: str | None) -> Image.Image:
    assert uri is not None
    assert uri.startswith("data:image/webp;base64,")
    picture = Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2])))
    picture.load()
    return picture


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP"])
def test_small_and_in_proportion(kind: str, make_picture: Callable[..., bytes]) -> None:
    small = thumbnail(make_picture(3, (400, 200), kind))
    assert (small.width, small.height) == (128, 64)
    picture = decoded(small.uri)
    assert picture.size == (128, 64)
    original = Image.open(io.BytesIO(make_picture(3, (400, 200), kind))).convert("RGB").resize((128, 64))
    assert np.abs(np.asarray(picture.convert("RGB"), float) - np.asarray(original, float)).mean() < 25


def test_never_enlarged(make_picture: Callable[..., bytes]) -> None:
    assert thumbnail(make_picture(1, (20, 10), "PNG")).width == 20


def test_transparency_stays() -> None:
    file = io.BytesIO()
    Image.new("RGBA", (40, 40), (255, 0, 0, 0)).save(file, "PNG")
    assert decoded(thumbnail(file.getvalue()).uri).convert("RGBA").getextrema()[3] == (0, 0)


def test_noise_fits_the_budget() -> None:
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (500, 500, 3), np.uint8)).save(file, "PNG")
    uri = thumbnail(file.getvalue()).uri
    assert uri is not None
    assert len(base64.b64decode(uri.partition(",")[2])) <= 1.5 * BUDGET_BYTES


def test_every_cut_of_an_image_is_a_tile_or_a_picture(make_picture: Callable[..., bytes]) -> None:
    whole = make_picture(5, (24, 24))
    for length in range(len(whole) - 2):
        assert thumbnail(whole[:length]).reason


def test_what_is_no_image_says_so() -> None:
    assert thumbnail(None).reason == "no image kept"
    assert thumbnail(b"").uri is None
    assert thumbnail(b"<html>not here</html>").reason == "not an image"
    assert thumbnail(b"<svg xmlns='http://www.w3.org/2000/svg'></svg>").uri is None

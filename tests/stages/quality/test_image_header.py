"""The header check against what the images were made as."""

import io

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from schemas.columns import COLUMNS, meaning
from stages.quality.image_header import Header, inspect

NOISE = np.random.Generator(np.random.Philox(3)).integers(0, 255, (24, 20, 3), dtype=np.uint8)


def encoded(kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(NOISE).save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF"])
def test_format_and_size(kind: str) -> None:
    assert inspect(encoded(kind)) == Header(kind, 20, 24)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_size_is_the_one_after_rotation(kind: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    image = encoded(kind, exif=exif)
    assert inspect(image) == inspect(image, decode=False) == Header(kind, 24, 20)
    assert inspect(image[:-8]).width_px in (24, None)


def test_a_png_turned_by_xmp_keeps_its_size_where_it_is_cut() -> None:
    text = PngInfo()
    text.add_itxt("XML:com.adobe.xmp", '<rdf:Description tiff:Orientation="6"/>')
    image = encoded("PNG", pnginfo=text)
    assert inspect(image) == inspect(image, decode=False) == Header("PNG", 24, 20)
    assert inspect(image[:-8]) == Header("PNG", 24, 20, "truncated_image")


@pytest.mark.parametrize("name", ["width_px", "height_px", "exif_rotation_degrees", "exif_mirrored"])
def test_what_columns_say_of_orientation_names_whatever_tells_it(name: str) -> None:
    assert "EXIF" in meaning(COLUMNS[name]) and "XMP" in meaning(COLUMNS[name])


def test_without_decoding_a_png_is_not_decoded_for_its_exif(monkeypatch: pytest.MonkeyPatch) -> None:
    image = encoded("PNG")
    monkeypatch.setattr(Image.Image, "load", lambda *_: pytest.fail("it was decoded"))
    monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.load", lambda *_: pytest.fail("it was decoded"))
    assert inspect(image, decode=False) == Header("PNG", 20, 24)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF"])
def test_a_cut_image_keeps_its_header_and_gets_a_reason(kind: str) -> None:
    image = encoded(kind)
    assert inspect(image[:-40]) == Header(kind, 20, 24, "truncated_image")
    assert inspect(image[:-40], decode=False) == Header(kind, 20, 24)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF"])
def test_cut_anywhere_it_has_a_reason_and_sizes_only_with_a_format(kind: str) -> None:
    image = encoded(kind)
    for size in range(len(image)):
        header = inspect(image[:size])
        assert header.reason is not None
        assert (header.image_format is None) == (header.width_px is None) == (header.height_px is None)


def test_no_image_at_all() -> None:
    assert inspect(None) == Header(reason="missing_image")
    assert inspect(b"") == Header(reason="empty_image")
    assert inspect(b"hello") == Header(reason="not_an_image")

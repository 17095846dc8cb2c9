"""Decoding: every cut is noticed, whole files are not blamed, hostile bytes never crash it."""

import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile
from PIL.PngImagePlugin import PngInfo

from stages.image_ends import ends, tiff_ends
from stages.pixels import PixelError, decode, decode_luma, flat_rgb, read_header, upright_size

NOISE = Image.fromarray(np.random.Generator(np.random.Philox(7)).integers(0, 255, (24, 20, 3), dtype=np.uint8))
WALKED = [
    ("JPEG", {}),
    ("JPEG", {"progressive": True}),
    ("JPEG", {"restart_marker_blocks": 1}),
    ("JPEG", {"exif": b"Exif\x00\x00" + b"\xff\xd8\xff\xd9" * 8}),  # a thumbnail's end marker is not the image's
    ("PNG", {}),
    ("WEBP", {}),
    ("WEBP", {"lossless": True}),
    ("GIF", {}),
    ("AVIF", {}),
    ("JPEG2000", {}),
]
REASONS = {"empty_image", "not_an_image", "unsupported_image", "truncated_image", "broken_image"}
REASONS |= {"too_many_pixels", "decompression_bomb"}
OTHERS = [("BMP", {}), ("TIFF", {}), ("PPM", {})]


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def reason(image: bytes) -> str | None:
    try:
        decode(image)
    except PixelError as error:
        assert str(error).startswith(error.reason)
        return error.reason
    return None


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(("kind", "options"), WALKED + OTHERS)
def test_every_cut_is_noticed(kind: str, options: dict[str, object]) -> None:
    image = encoded(NOISE, kind, **options)
    assert reason(image) is None
    assert reason(b"") == "empty_image"
    reasons = [reason(image[:size]) for size in range(1, len(image))]
    assert set(reasons) <= {"not_an_image", "truncated_image", "broken_image"}
    assert reasons[-1] == "truncated_image"


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("compression", ["raw", "tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg", "group4"])
def test_a_cut_tiff_is_no_garbage(compression: str, big: bool) -> None:
    """Wherever its directory stands: libtiff writes it behind the pixels."""
    picture = NOISE.resize((90, 120))
    if compression == "group4":
        picture = picture.convert("1")
    image = encoded(picture, "TIFF", compression=compression, big_tiff=big)
    assert reason(image) is None and tiff_ends(image) is True
    for size in (*range(4, 64), *range(64, len(image), max(1, len(image) // 64)), *range(len(image) - 64, len(image))):
        assert reason(image[:size]) in ("truncated_image", None)  # libtiff does without some of its directory
    assert reason(image[:-64]) == "truncated_image" and reason(b"II") == reason(b"MM*\0 is text") == "not_an_image"


def test_a_whole_tiff_of_unknown_samples_is_not_supported() -> None:
    image = bytearray(encoded(NOISE, "TIFF"))
    at = image.index(b"\x06\x01\x03\x00\x01\x00\x00\x00") + 8  # the tag that says what its samples mean
    image[at : at + 2] = b"\xff\x7f"
    assert reason(bytes(image)) == "unsupported_image"


@pytest.mark.parametrize(("kind", "options"), WALKED)
def test_bytes_behind_the_end_do_no_harm(kind: str, options: dict[str, object]) -> None:
    image = encoded(NOISE, kind, **options)
    assert ends(image) is True
    for tail in (b"\x00" * 16, b"\xff\xda trailing", image[:40]):
        assert ends(image + tail) is True
        if kind not in ("AVIF", "JPEG2000"):  # their decoders look at every box
            assert reason(image + tail) is None


@pytest.mark.parametrize(("kind", "options"), WALKED)
@pytest.mark.parametrize("missing", [1, 2])
def test_a_cut_header_and_a_cut_tail_are_told_from_garbage(kind: str, options: dict[str, object], missing: int) -> None:
    image = encoded(NOISE, kind, **options)
    assert reason(image[:-missing]) == "truncated_image"
    assert reason(image[:16]) == "truncated_image"
    assert reason(b"this is no picture at all") == "not_an_image"
    assert reason(b"<!DOCTYPE html><html></html>" * 4) == "not_an_image"


@pytest.mark.parametrize(("kind", "missing"), [("PNG", 12), ("PNG", 1), ("GIF", 1)])
def test_a_missing_end_is_noticed_where_pillow_takes_it(kind: str, missing: int) -> None:
    image = encoded(NOISE, kind)[:-missing]
    Image.open(io.BytesIO(image)).load()
    assert reason(image) == "truncated_image"


def test_another_library_cannot_make_it_lenient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    image = encoded(NOISE, "BMP")
    assert reason(image[: len(image) // 2]) == "truncated_image"


def test_a_damaged_whole_file_is_broken() -> None:
    image = bytearray(encoded(NOISE, "PNG"))
    image[len(image) // 2] ^= 0xFF
    assert reason(bytes(image)) == "broken_image"


def test_ghostscript_is_never_asked() -> None:
    assert reason(encoded(NOISE, "EPS")) == "unsupported_image"


def bomb(width: int, height: int) -> bytes:
    """A PNG that claims to be huge in 60 bytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("width", "height", "expected"),
    [
        (13_378, 13_378, "too_many_pixels"),
        (100_000, 100_000, "too_many_pixels"),
        (2 << 20, 1, "too_many_pixels"),
        (1, 2 << 20, "too_many_pixels"),
        (13_000, 13_000, "decompression_bomb"),
        (4_096, 4_096, "broken_image"),  # small enough to try
    ],
)
def test_a_bomb_is_refused_before_it_takes_memory(width: int, height: int, expected: str) -> None:
    assert reason(bomb(width, height)) == expected


def test_the_limit_is_a_setting_and_inclusive() -> None:
    image = encoded(NOISE, "PNG")
    assert decode(image, max_pixels=480).size == (20, 24)
    with pytest.raises(PixelError, match="20 x 24; at most 479"):
        decode(image, max_pixels=479)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_upright_by_exif_and_so_is_the_size_told_from_the_header(kind: str, orientation: int) -> None:
    corners = np.zeros((16, 32, 3), np.uint8)
    corners[:8, :16] = 255  # white in the stored top left
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = encoded(Image.fromarray(corners), kind, exif=exif)
    upright = decode(image)
    assert upright.size == ((32, 16) if orientation < 5 else (16, 32)) == upright_size(read_header(image))
    grey = np.asarray(upright.convert("L"), int)
    halves = grey[: len(grey) // 2], grey[len(grey) // 2 :]
    brightest = max(
        (half[:, side].mean(), (place, number))
        for place, half in enumerate(halves)
        for number, side in enumerate((slice(None, grey.shape[1] // 2), slice(grey.shape[1] // 2, None)))
    )[1]
    # EXIF 2.32, tag 274: where row 0 and column 0 are to be shown.
    shown = {1: (0, 0), 2: (0, 1), 3: (1, 1), 4: (1, 0), 5: (0, 0), 6: (0, 1), 7: (1, 1), 8: (1, 0)}
    assert brightest == shown[orientation]


def with_xmp(image: Image.Image, kind: str, told: str) -> bytes:
    """As XMP tells an orientation; in a PNG that is a text chunk."""
    xmp = f'<x:xmpmeta><rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/" {told}/></x:xmpmeta>'
    if kind == "PNG":
        text = PngInfo()
        text.add_itxt("XML:com.adobe.xmp", xmp)
        return encoded(image, kind, pnginfo=text)
    return encoded(image, kind, **({"tiffinfo": {700: xmp.encode()}} if kind == "TIFF" else {"xmp": xmp.encode()}))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
def test_upright_by_xmp_where_exif_tells_nothing(kind: str) -> None:
    for value in range(10):
        image = with_xmp(NOISE, kind, f'tiff:Orientation="{value}"')
        shown = (24, 20) if 5 <= value <= 8 else (20, 24)
        assert decode(image).size == upright_size(read_header(image)) == shown
        assert decode_luma(image, pixels=10**6)[1] == (value if 1 <= value <= 8 else 1)
    assert upright_size(read_header(with_xmp(NOISE, kind, 'tiff:Make="x"'))) == (20, 24)


def test_the_sides_of_a_header_are_told_without_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    image = with_xmp(NOISE, "PNG", 'tiff:Orientation="6"')
    monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.load", lambda *_: pytest.fail("it was decoded"))
    assert upright_size(read_header(image)) == (24, 20)


def test_a_damaged_exif_block_is_ignored() -> None:
    assert decode(encoded(NOISE, "JPEG", exif=b"Exif\x00\x00MM\x00\x2a\xff\xff\xff\xff")).size == (20, 24)


def test_transparency_is_dropped_not_composed() -> None:
    pixels = np.zeros((2, 2, 4), np.uint8)
    pixels[..., 0], pixels[0, 0, 3] = 200, 255
    flat = flat_rgb(decode(encoded(Image.fromarray(pixels, "RGBA"), "PNG")))
    assert flat.mode == "RGB" and np.asarray(flat)[..., 0].tolist() == [[200, 200], [200, 200]]


@pytest.mark.filterwarnings("ignore::UserWarning")
@settings(deadline=None)
@given(st.binary(max_size=200), st.sampled_from([encoded(NOISE, kind, **options)[:60] for kind, options in WALKED]))
def test_hostile_bytes_give_a_reason(tail: bytes, head: bytes) -> None:
    for image in (tail, head + tail):
        assert reason(image) in REASONS


def test_a_decoder_that_runs_out_of_memory_was_lied_to_where_the_picture_would_fit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def short(*_: object) -> None:
        raise MemoryError

    image = encoded(NOISE, "PNG")
    monkeypatch.setattr(ImageFile.ImageFile, "load", short)
    assert reason(image) == "broken_image"
    monkeypatch.setattr("builtins.bytearray", short)
    with pytest.raises(MemoryError):
        decode(image)


GREY = np.linspace(0, 255, 24 * 20).reshape(24, 20).astype(np.uint8)


@pytest.mark.parametrize(
    ("pixels", "kind"),
    [
        (GREY.astype(np.uint16) * 257, "PNG"),
        (GREY.astype(np.uint16) * 257, "TIFF"),
        (GREY.astype(np.uint16) * 257, "PPM"),
        (GREY.astype(np.int32) * 257, "TIFF"),
        (GREY.astype(np.int32) * 70_000, "TIFF"),
        (GREY.astype(np.float32) / 255, "TIFF"),
        (GREY.astype(np.float32), "TIFF"),
    ],
)
def test_grey_of_any_depth_is_the_same_grey(pixels: np.ndarray, kind: str) -> None:
    picture = decode(encoded(Image.fromarray(pixels), kind))
    assert picture.mode == "L"
    assert np.abs(np.asarray(picture).astype(int) - GREY).max() <= 1


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "YCbCr", "LAB", "I", "F", "RGBX"])
def test_every_mode_a_tiff_can_have_converts(mode: str) -> None:
    picture = decode(encoded(NOISE.convert(mode), "TIFF"))
    assert flat_rgb(picture).size == picture.convert("L").size == (20, 24)


def test_numbers_that_are_none_do_no_harm() -> None:
    for value in (np.nan, np.inf, -np.inf):
        assert decode(encoded(Image.fromarray(np.full((4, 4), value, np.float32)), "TIFF")).mode == "L"


@pytest.mark.parametrize(
    "head",
    [
        b"\0\0\0\x18ftypheic",
        b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic",
        b"\xff\x0a",
        b"\0\0\0\x0cJXL \r\n\x87\n",
        b"8BPS",
        b"%PDF-1",
    ],
)
def test_an_image_without_a_decoder_is_told_from_no_image(head: bytes) -> None:
    assert reason(head + bytes(80)) == "unsupported_image"


def test_the_middle_of_a_strip_is_what_a_model_sees() -> None:
    strip = np.zeros((20_001, 2, 3), np.uint8)
    strip[10_000] = 255
    flat = flat_rgb(decode(encoded(Image.fromarray(strip), "PNG")))
    assert flat.size == (2, 1025) and np.asarray(flat)[512].min() == 255
    assert flat_rgb(Image.new("RGB", (2, 1024))).size == (2, 1024)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


@pytest.mark.parametrize("kind", [b"zTXt", b"iCCP", b"iTXt"])
def test_text_that_inflates_is_a_bomb(kind: bytes) -> None:
    image = encoded(NOISE, "PNG")
    head = b"key\0\1\0\0\0" if kind == b"iTXt" else b"key\0\0"
    for size, expected in ((1000, None), (8 << 20, "decompression_bomb")):
        extra = chunk(kind, head + zlib.compress(bytes(size)))
        assert reason(image[:33] + extra + image[33:]) == expected

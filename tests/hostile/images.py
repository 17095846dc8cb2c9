"""Image files as the web has them: odd ones that are sound, broken ones, and ones made to hurt."""

import io
import struct
import zlib

import numpy as np
from PIL import Image

HTML = b"<!DOCTYPE html><html><body><h1>404 Not Found</h1></body></html>"
SVG = b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><rect width="9"/></svg>'
ORIENTATION = 0x0112


def photo(number: int, width: int = 48, height: int = 36) -> Image.Image:
    """A smooth picture that differs clearly from that of every other number."""
    noise = np.random.Generator(np.random.Philox(number)).integers(0, 255, (5, 7, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def jpeg(number: int, **options: object) -> bytes:
    return encoded(photo(number), "JPEG", **options)


def rotated(upright: Image.Image, kind: str = "JPEG", **options: object) -> bytes:
    """Stored lying on its side, with the EXIF tag that turns it upright again."""
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    return encoded(upright.transpose(Image.Transpose.ROTATE_90), kind, exif=exif, **options)


def ycck(number: int) -> bytes:
    """A CMYK JPEG whose Adobe marker says that the first three inks are YCbCr."""
    image = bytearray(encoded(photo(number).convert("CMYK"), "JPEG"))
    image[image.index(b"Adobe") + 11] = 2
    return bytes(image)


def sound() -> dict[str, tuple[str, bytes]]:
    """Name -> (suffix, bytes) of images that any decoder shows."""
    grey = np.asarray(photo(1).convert("L")).astype(np.uint16) * 257
    palette = photo(2).convert("P", palette=Image.Palette.ADAPTIVE)
    frames = {"save_all": True, "append_images": [photo(4), photo(5)]}
    return {
        "plain": ("jpg", jpeg(0)),
        "progressive": ("jpg", jpeg(6, progressive=True)),
        "cmyk": ("jpg", encoded(photo(7).convert("CMYK"), "JPEG")),
        "ycck": ("jpg", ycck(8)),
        "cmyk_tiff": ("tif", encoded(photo(9).convert("CMYK"), "TIFF")),
        "lab_tiff": ("tiff", encoded(photo(10).convert("LAB"), "TIFF")),
        "float_tiff": ("tif", encoded(photo(11).convert("F"), "TIFF")),
        "grey16_png": ("png", encoded(Image.fromarray(grey), "PNG")),
        "grey16_tiff": ("tif", encoded(Image.fromarray(grey), "TIFF")),
        "rgb16_png": ("png", png(16, 12, [bytes(range(96))] * 12, depth=16)),
        "one_bit": ("png", encoded(photo(12).convert("1"), "PNG")),
        "palette": ("png", encoded(palette, "PNG")),
        "palette_clear": ("png", encoded(palette, "PNG", transparency=bytes(range(64)))),
        "transparent": ("png", encoded(photo(13).convert("RGBA"), "PNG")),
        "animated_gif": ("gif", encoded(photo(14), "GIF", **frames)),
        "animated_webp": ("webp", encoded(photo(15), "WEBP", **frames)),
        "animated_png": ("png", encoded(photo(16), "PNG", **frames)),
        "rotated": ("jpg", rotated(photo(17))),
        "rotated_png": ("png", rotated(photo(18), "PNG")),
        "png_in_jpg": ("jpg", encoded(photo(19), "PNG")),
        "webp_in_png": ("png", encoded(photo(20), "WEBP")),
        "jpg_in_tiff": ("tiff", jpeg(21)),
        "avif": ("avif", encoded(photo(22), "AVIF")),
        "jpeg2000": ("jp2", encoded(photo(23), "JPEG2000")),
        "bmp": ("bmp", encoded(photo(24), "BMP")),
        "ico": ("ico", encoded(photo(25), "ICO", sizes=[(16, 16)])),
        "ppm": ("ppm", encoded(photo(26), "PPM")),
        "thin": ("png", encoded(Image.new("RGB", (1, 20_000), "teal"), "PNG")),
        "flat": ("png", encoded(Image.new("RGB", (20_000, 1), "navy"), "PNG")),
        "one_pixel": ("gif", encoded(Image.new("P", (1, 1)), "GIF")),
        "damaged_exif": ("jpg", jpeg(27, exif=b"Exif\0\0MM\0\x2a\xff\xff\xff\xff")),
        "bytes_behind": ("jpg", jpeg(28) + HTML),
    }


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, lines: list[bytes], *, depth: int = 8, extra: bytes = b"") -> bytes:
    """An RGB PNG of these scan lines, whatever size it claims."""
    header = struct.pack(">IIBBBBB", width, height, depth, 2, 0, 0, 0)
    content = zlib.compress(b"".join(b"\0" + line for line in lines))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + extra + chunk(b"IDAT", content) + chunk(b"IEND", b"")


def deflated_zeros(size: int) -> bytes:
    """Zeros as a zlib stream of a thousandth of their size."""
    packer = zlib.compressobj(9)
    return b"".join([packer.compress(bytes(1 << 20)) for _ in range(size >> 20)]) + packer.flush()


def gif(screen: tuple[int, int], frame: tuple[int, int]) -> bytes:
    image = bytearray(encoded(Image.new("P", (4, 4)), "GIF"))
    colours = 3 << (1 + (image[10] & 7)) if image[10] & 0x80 else 0
    place = image.index(b"\x2c", 13 + colours)
    image[6:10] = struct.pack("<HH", *screen)
    image[place + 5 : place + 9] = struct.pack("<HH", *frame)
    return bytes(image)


def webp(width: int, height: int) -> bytes:
    """An animation of one small frame on a canvas of a size of its own."""
    image = bytearray(encoded(photo(0), "WEBP", save_all=True, append_images=[photo(1)]))
    place = image.index(b"VP8X")
    image[place + 12 : place + 18] = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    return bytes(image)


def tiff(width: int, height: int, compression: int, strip: bytes, claimed: int) -> bytes:
    """A grey TIFF of one strip that claims a size of its own."""
    numbers = [(256, width), (257, height), (258, 8), (259, compression), (262, 1), (273, 122), (277, 1)]
    fields = [*numbers, (278, height), (279, claimed)]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in fields)
    return b"II*\0" + struct.pack("<IH", 8, len(fields)) + entries + bytes(4) + strip


def bmp_runs(width: int, height: int, runs: bytes) -> bytes:
    """A run-length BMP of a few bytes."""
    header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8, 1, len(runs), 0, 0, 256, 0)
    return b"BM" + struct.pack("<IHHI", 1078 + len(runs), 0, 0, 1078) + header + bytes(1024) + runs


def jpeg2000(width: int, height: int) -> bytes:
    image = bytearray(encoded(photo(0), "JPEG2000"))
    size = struct.pack(">II", width, height)
    for mark, steps in ((b"ihdr", (4,)), (b"\xff\x51", (6, 22))):
        for step in steps:
            place = image.index(mark) + step
            image[place : place + 8] = size[::-1] if mark == b"" else size
    return bytes(image)


def avif(width: int, height: int) -> bytes:
    image = bytearray(encoded(photo(0, 64, 64), "AVIF"))
    place = image.index(b"ispe") + 8
    image[place : place + 8] = struct.pack(">II", width, height)
    return bytes(image)


def ico(inner: bytes) -> bytes:
    return struct.pack("<HHHBBBBHHII", 0, 1, 1, 16, 16, 0, 0, 1, 32, len(inner), 22) + inner


def bombs() -> dict[str, tuple[bytes, str]]:
    """Name -> (bytes, reason) of small files that make decoders take gigabytes; the reason "" for one that is sound."""
    zeros = deflated_zeros(300 << 20)
    line = bytes(24)
    return {
        "idat": (png(8, 8, [line] * 8)[:33] + chunk(b"IDAT", zeros) + chunk(b"IEND", b""), ""),
        "ztxt": (png(8, 8, [line] * 8, extra=chunk(b"zTXt", b"k\0\0" + zeros)), "decompression_bomb"),
        "itxt": (png(8, 8, [line] * 8, extra=chunk(b"iTXt", b"k\0\1\0\0\0" + zeros)), "decompression_bomb"),
        "iccp": (png(8, 8, [line] * 8, extra=chunk(b"iCCP", b"k\0\0" + zeros)), "decompression_bomb"),
        "png_pixels": (png(100_000, 100_000, [line]), "too_many_pixels"),
        "png_claim": (png(13_000, 13_000, [line]), "decompression_bomb"),
        "png_wide": (png(170_000_000, 1, [line]), "too_many_pixels"),
        "png_tall": (png(1, 170_000_000, [line]), "too_many_pixels"),
        "gif_frame": (gif((4, 4), (65_535, 65_535)), "too_many_pixels"),
        "gif_screen": (gif((13_000, 13_000), (4, 4)), "decompression_bomb"),
        "webp_canvas": (webp(65_535, 65_535), "too_many_pixels"),
        "webp_claim": (webp(13_000, 13_000), "decompression_bomb"),
        "tiff_strip": (tiff(10_000, 30_000, 1, b"x" * 90, 300 << 20), "too_many_pixels"),
        "tiff_strip_raw": (tiff(100, 100, 1, b"x" * 90, 300 << 20), "truncated_image"),
        "tiff_strip_lzw": (tiff(10_000, 10_000, 5, b"x" * 90, 300 << 20), "decompression_bomb"),
        "tiff_strip_deflate": (tiff(9, 9, 8, zeros, 0xFFFFFFFF), ""),
        "bmp_jump": (bmp_runs(1 << 20, 1, b"\0\2\xff\xff" * 9), ""),
        "bmp_runs": (bmp_runs(13_000, 13_000, b"\0\2\xff\xff" * 9), "decompression_bomb"),
        "jpeg2000_claim": (jpeg2000(13_000, 13_000), "decompression_bomb"),
        "avif_claim": (avif(13_000, 13_000), "decompression_bomb"),
        "ico_inside": (ico(png(100_000, 100_000, [line])), "too_many_pixels"),
    }


def broken() -> dict[str, tuple[str, bytes, str]]:
    """Name -> (suffix, bytes, reason) of what is no image, or no longer."""
    whole = jpeg(30)
    other = encoded(photo(31), "PNG")
    flipped = bytearray(other)
    flipped[len(other) // 2] ^= 0xFF
    return {
        "zero_bytes": ("jpg", b"", "empty_image"),
        "one_byte": ("jpg", whole[:1], "not_an_image"),
        "cut_header": ("jpg", whole[:12], "truncated_image"),
        "cut_half": ("jpg", whole[: len(whole) // 2], "truncated_image"),
        "cut_end": ("jpg", whole[:-1], "truncated_image"),
        "cut_png": ("png", other[:-12], "truncated_image"),
        "cut_gif": ("gif", encoded(photo(32), "GIF")[:-1], "truncated_image"),
        "cut_tiff": ("tif", encoded(photo(32), "TIFF")[:2000], "truncated_image"),
        "flipped": ("png", bytes(flipped), "broken_image"),
        "html": ("jpg", HTML, "not_an_image"),
        "svg": ("jpg", SVG, "not_an_image"),
        "text": ("png", b"this is no picture", "not_an_image"),
        "zeros": ("jpg", bytes(4096), "not_an_image"),
        "postscript": ("jpg", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "unsupported_image"),
        "pdf": ("jpg", b"%PDF-1.7\n%%EOF\n", "unsupported_image"),
        "heic": ("heic", b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(200), "unsupported_image"),
        "jpeg_xl": ("jxl", b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(200), "unsupported_image"),
    }

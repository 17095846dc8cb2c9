"""Damage as strategies: what interrupted downloads, bad disks and ill will do to bytes."""

import io
import tarfile
from functools import cache

import numpy as np
from hypothesis import strategies as st
from PIL import Image

BLOCK = tarfile.BLOCKSIZE
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "AVIF", "JPEG2000", "ICO", "PPM")
NASTY = (b"\0" * 4, b"\xff" * 4, b"\x7f\xff\xff\xff", b"\x80\0\0\0", b"\0\0\0\1", b"\xff\xff", b"\0\1", b"\x1f\x8b")
HEADER_FIELDS = ((0, 100), (124, 12), (148, 8), (156, 1), (157, 100), (257, 8), (345, 155), (482, 1))
"""Name, size, checksum, type, link name, magic, prefix, sparse flag of a tar header."""
FIELD_VALUES = (
    b"",
    b"\0",
    b"../x.jpg",
    b"/etc/passwd",
    b"77777777777",
    b"-1",
    b"\x80" + b"\xff" * 11,
    b"0",
    b"5",
    b"x",
)


def edited(content: bytes) -> st.SearchStrategy[bytes]:
    """The bytes after a few edits: cut, flip, overwrite, delete, repeat, insert."""

    def apply(edits: list[tuple[str, float, float, bytes]]) -> bytes:
        found = bytearray(content)
        for kind, where, how_much, other in edits:
            at, size = int(where * len(found)), 1 + int(how_much * min(600, len(found)))
            if kind == "cut":
                del found[at:]
            elif kind == "delete":
                del found[at : at + size]
            elif kind == "repeat":
                found[at:at] = found[at : at + size]
            elif kind == "insert":
                found[at:at] = other
            else:
                found[at : at + len(other)] = other
        return bytes(found)

    place = st.floats(0, 1, exclude_max=True)
    kinds = st.sampled_from(["cut", "delete", "repeat", "insert", "overwrite", "overwrite", "overwrite"])
    other = st.one_of(st.sampled_from(NASTY), st.binary(min_size=1, max_size=6))
    return st.lists(st.tuples(kinds, place, place, other), min_size=1, max_size=5).map(apply)


@cache
def images() -> dict[str, bytes]:
    """One small image of every format, and the variants whose decoders differ."""
    noise = np.random.Generator(np.random.Philox(5)).integers(0, 255, (4, 5, 3), dtype=np.uint8)
    picture = Image.fromarray(noise).resize((20, 16))
    exif = Image.Exif()
    exif[0x0112] = 6
    frames = {"save_all": True, "append_images": [picture.rotate(180)]}
    variants = {
        "progressive": (picture, "JPEG", {"progressive": True, "exif": exif}),
        "cmyk": (picture.convert("CMYK"), "JPEG", {}),
        "palette": (picture.convert("P"), "PNG", {"transparency": 3}),
        "frames_png": (picture, "PNG", frames),
        "frames_gif": (picture, "GIF", frames),
        "frames_webp": (picture, "WEBP", frames),
        "lzw": (picture, "TIFF", {"compression": "tiff_lzw"}),
        "deflate": (picture, "TIFF", {"compression": "tiff_adobe_deflate", "exif": exif}),
        "tiff_jpeg": (picture, "TIFF", {"compression": "jpeg"}),
        "fax": (picture.convert("1"), "TIFF", {"compression": "group4"}),
        "float": (picture.convert("F"), "TIFF", {}),
        "lab": (picture.convert("LAB"), "TIFF", {}),
        "bmp_palette": (picture.convert("P"), "BMP", {}),
    } | {kind: (picture, kind, {}) for kind in FORMATS}
    found = {}
    for name, (image, kind, options) in variants.items():
        buffer = io.BytesIO()
        image.save(buffer, kind, **options)
        found[name] = buffer.getvalue()
    return found


def broken_images() -> st.SearchStrategy[bytes]:
    """Damaged images of every format."""
    return st.sampled_from(sorted(images())).flatmap(lambda name: edited(images()[name]))


@cache
def tars() -> dict[str, bytes]:
    """Sound tars in every dialect, with the members that pools have."""
    found = {}
    for name, form in (("ustar", tarfile.USTAR_FORMAT), ("gnu", tarfile.GNU_FORMAT), ("pax", tarfile.PAX_FORMAT)):
        sink = io.BytesIO()
        with tarfile.open(fileobj=sink, mode="w", format=form) as archive:
            for number in range(5):
                key = f"{number:03d}" if number != 2 or name == "ustar" else "k" * 150
                for suffix, size in (("jpg", 300 + 200 * number), ("txt", 20), ("json", 2)):
                    content = b"{}" if suffix == "json" else bytes([65 + number]) * size
                    info = tarfile.TarInfo(f"{key}.{suffix}")
                    info.size = len(content)
                    archive.addfile(info, io.BytesIO(content))
        found[name] = sink.getvalue()
    return found


def with_field(content: bytes, block: int, field: int, value: bytes, fix: bool) -> bytes:
    """A tar with one header field overwritten; `fix` makes the checksum right again."""
    found = bytearray(content)
    at = block % (len(found) // BLOCK) * BLOCK
    offset, size = HEADER_FIELDS[field % len(HEADER_FIELDS)]
    found[at + offset : at + offset + size] = value[:size].ljust(size, b"\0")
    if fix:
        found[at + 148 : at + 156] = b" " * 8
        found[at + 148 : at + 156] = b"%06o\0 " % sum(found[at : at + BLOCK])
    return bytes(found)


def with_blocks_moved(content: bytes, first: int, second: int) -> bytes:
    """A tar with two of its blocks swapped."""
    blocks = [content[at : at + BLOCK] for at in range(0, len(content), BLOCK)]
    one, other = first % len(blocks), second % len(blocks)
    blocks[one], blocks[other] = blocks[other], blocks[one]
    return b"".join(blocks)


@st.composite
def broken_tars(draw: st.DrawFn) -> bytes:
    """Damaged tars: edits of bytes, header fields, blocks; several one after the other."""
    content = draw(st.sampled_from(list(tars().values())))
    number = st.integers(0, 60)
    for _ in range(draw(st.integers(0, 3))):
        how = draw(st.sampled_from(["field", "blocks", "edit", "more", "noise"]))
        if how == "field":
            values = st.one_of(st.sampled_from(FIELD_VALUES), st.binary(max_size=12))
            content = with_field(content, draw(number), draw(number), draw(values), draw(st.booleans()))
        elif how == "blocks":
            content = with_blocks_moved(content, draw(number), draw(number))
        elif how == "edit":
            content = draw(edited(content))
        elif how == "more":
            content += draw(st.sampled_from(list(tars().values())))
        else:
            content += draw(st.binary(max_size=700))
        if len(content) < BLOCK:
            break
    return content

"""Where image containers end, read from their structure alone: tells a cut file from a broken one without decoding."""

from collections.abc import Callable

import numpy as np

JPEG, PNG = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"
GIFS = (b"GIF87a", b"GIF89a")
BOXES = (b"ftypavif", b"ftypavis", b"ftypmif1", b"jP  \r\n\x87\n")

FOREIGN_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1", b"crx ")
FOREIGN = (
    *(b"\xff\x0a", b"\0\0\0\x0cJXL ", b"8BPS", b"%PDF-", b"%!PS", b"\xc5\xd0\xd3\xc6", b"II\xbc\x01", b"qoif"),
    *(b"v/1\x01", b"gimp xcf", b"\xd7\xcd\xc6\x9a", b"SDPX", b"XPDS", b"DDS "),
)
"""JPEG XL, Photoshop, PDF, PostScript, JPEG XR, QOI, OpenEXR, GIMP, WMF, DPX, DDS."""

TIFF_ORDERS = {b"II": "<", b"MM": ">"}
TIFF_PIXELS = {0x0111: 0x0117, 0x0144: 0x0145}
"""Offsets of strips and of tiles -> their lengths."""
TIFF_NUMBERS = {3: "u2", 4: "u4", 16: "u8"}
TIFF_BYTES = dict(enumerate((1, 1, 2, 4, 8, 1, 1, 2, 4, 8, 4, 8, 4), start=1)) | {16: 8, 17: 8, 18: 8}
"""What one value of each type takes."""
MOST_TIFF_ENTRIES = 1 << 16
"""A TIFF cannot have more; a BigTIFF that says so is not worth the walk."""


def is_foreign(image: bytes) -> bool:
    """Whether it begins like an image or page of a format that has no decoder here, such as HEIC or JPEG XL."""
    if image[4:8] == b"ftyp":
        return image[8:12] in FOREIGN_BRANDS and b"avif" not in image[8:64]
    return image.startswith(FOREIGN)


def ends(image: bytes) -> bool | None:
    """Whether the container's own end lies inside the bytes; None for a format without a walk here."""
    walk = _walk(image)
    return None if walk is None else walk(image)


def _walk(image: bytes) -> Callable[[bytes], bool] | None:
    if image.startswith(JPEG):
        return _jpeg_ends
    if image.startswith(PNG):
        return _png_ends
    if image.startswith(GIFS):
        return _gif_ends
    if image.startswith(b"RIFF") and image[8:12] == b"WEBP":
        return _webp_ends
    return _boxes_end if image[4:12] in BOXES else None


def _jpeg_ends(image: bytes) -> bool:
    """Segments up to the first scan, then the end marker: inside a scan 0xFF is followed by 0 or a restart marker."""
    at = 2
    while 0 <= (at := image.find(b"\xff", at)) <= len(image) - 2:
        marker = image[at + 1]
        if marker == 0xD9:
            return True
        if marker == 0xDA:
            return image.find(b"\xff\xd9", at + 2) >= 0
        if marker == 0xFF:  # a fill byte
            at += 1
        elif marker <= 0x01 or 0xD0 <= marker <= 0xD8:  # markers that stand alone
            at += 2
        else:
            at += 2 + int.from_bytes(image[at + 2 : at + 4])
    return False


def _png_ends(image: bytes) -> bool:
    """Chunks of length, type, data and checksum up to IEND."""
    at = len(PNG)
    while at + 12 <= len(image):
        kind, size = image[at + 4 : at + 8], int.from_bytes(image[at : at + 4])
        at += 12 + size
        if kind == b"IEND":
            return at <= len(image)
    return False


def _gif_ends(image: bytes) -> bool:
    """Extensions and frames up to the trailer 0x3B."""
    if len(image) < 13:
        return False
    at = 13 + _colours(image[10])
    while at < len(image):
        block = image[at]
        if block == 0x3B:
            return True
        if block == 0x21:
            at = _after_sub_blocks(image, at + 2)
        elif block == 0x2C and at + 10 <= len(image):
            at = _after_sub_blocks(image, at + 10 + _colours(image[at + 9]) + 1)
        else:  # a stray byte, which decoders skip
            at += 1
    return False


def _colours(flags: int) -> int:
    return 3 << (1 + (flags & 7)) if flags & 0x80 else 0


def _after_sub_blocks(image: bytes, at: int) -> int:
    while at < len(image) and image[at]:
        at += 1 + image[at]
    return at + 1


def _webp_ends(image: bytes) -> bool:
    return 8 + int.from_bytes(image[4:8], "little") <= len(image)


def _boxes_end(image: bytes) -> bool:
    """ISO media boxes of AVIF and JPEG 2000 up to the pixels: length and type; 0 runs on, 1 puts the length behind."""
    at = 0
    while at + 8 <= len(image):
        size, kind = int.from_bytes(image[at : at + 4]), image[at + 4 : at + 8]
        if size == 1:
            size = int.from_bytes(image[at + 8 : at + 16])
        at += max(size, 8)
        if kind in (b"mdat", b"jp2c"):
            return at <= len(image)
    return False


def tiff_ends(image: bytes) -> bool | None:
    """Whether a TIFF's first directory and the strips or tiles that it names lie inside; None for another format.

    To be asked of a file that did not decode: writers are careless with these lengths, and decoders with them.
    """
    order = TIFF_ORDERS.get(image[:2])
    if order is None or len(image) < 4 or (version := _number(image, 2, f"{order}u2")) not in (42, 43):
        return None
    # A TIFF counts in 4 bytes, a BigTIFF in 8.
    at, word, counts, entry = (4, "u4", "u2", 12) if version == 42 else (8, "u8", "u8", 20)
    directory = _number(image, at, order + word)
    entries = _number(image, directory, order + counts)
    first = directory + np.dtype(counts).itemsize
    if first + entries * entry > len(image):
        return False
    if entries > MOST_TIFF_ENTRIES:
        return True
    found, width, pixels = dict[int, list[int]](), np.dtype(word).itemsize, {*TIFF_PIXELS, *TIFF_PIXELS.values()}
    for place in range(first, first + entries * entry, entry):
        tag, kind = (_number(image, place + shift, f"{order}u2") for shift in (0, 2))
        count, at, size = _number(image, place + 4, order + word), place + 4 + width, TIFF_BYTES.get(kind, 1)
        if count * size > width:  # it stands elsewhere
            at = _number(image, at, order + word)
        if at + count * size > len(image):
            return False
        if tag in pixels and tag not in found and kind in TIFF_NUMBERS:
            found[tag] = np.frombuffer(image, order + TIFF_NUMBERS[kind], count, at).tolist()
    return all(
        offset + length <= len(image)
        for offsets, lengths in TIFF_PIXELS.items()
        for offset, length in zip(found.get(offsets, []), found.get(lengths, []), strict=False)
    )


def _number(image: bytes, at: int, kind: str) -> int:
    """One number; beyond the bytes so many that it points there, too."""
    size = np.dtype(kind).itemsize
    return int(np.frombuffer(image, kind, 1, at)[0]) if at + size <= len(image) else 1 << 64

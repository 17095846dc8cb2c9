"""One sample on its way into the index, or many in columns; what its names, its captions and its bytes come to."""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import xxhash

from pipeline.shards.foreign_json import parse_json

# Suffixes that name an image, preferred first when a sample has several.
IMAGE_SUFFIXES = (
    *("jpg", "jpeg", "png", "webp", "avif", "heic", "heif", "jxl", "jp2", "gif", "bmp", "tif", "tiff"),
    *("jfif", "jpe", "ppm", "pgm", "pbm", "ico"),
)
IMAGE_RANKS = {suffix: rank for rank, suffix in enumerate(IMAGE_SUFFIXES)}
MOST_CAPTION_BYTES = 16 << 20
BYTE_ORDER_MARK = "\ufeff"


@dataclass(slots=True)
class Row:
    """A line of the index with its image: the range it accounts for, what is in it, what is wrong with it."""

    start: int
    stop: int
    key: str | None = None
    caption: str | None = None
    image_member: str | None = None
    members: Sequence[tuple[str, int, int]] = ()
    """(name, offset, size) of each member whose bytes are there."""
    image_hash: str | None = None
    content_hash: str | None = None
    reason: str | None = None
    image: bytes | memoryview | None = None
    """A view holds until the next row is asked for."""

    @property
    def held_bytes(self) -> int:
        """About what it takes in memory."""
        names = sum(len(name) for name, _, _ in self.members)
        return len(self.image or b"") + len(self.caption or "") + len(self.key or "") + names


@dataclass(slots=True)
class RowBatch:
    """Rows one after the other in columns, each with as many members as the others and nothing cut off."""

    starts: list[int]
    stops: list[int]
    keys: list[str]
    captions: Sequence[str | None]
    image_members: Sequence[str | None]
    names: list[str]
    """Of all members, row by row."""
    offsets: list[int]
    sizes: list[int]
    image_hashes: Sequence[str | None]
    content_hashes: Sequence[str | None]
    reasons: list[str | None]
    images: Sequence[memoryview | None]
    """Views that hold until the next rows are asked for."""

    @property
    def members(self) -> int:
        """Of each row."""
        return len(self.names) // len(self.keys)

    def held_bytes(self) -> int:
        """What `Row.held_bytes` says of all of them."""
        texts = (self.keys, filter(None, self.captions), self.names, filter(None, self.images))
        return sum(sum(map(len, one)) for one in texts)

    def rows(self) -> Iterator[Row]:
        """One by one."""
        members = list(zip(self.names, self.offsets, self.sizes, strict=True))
        for number in range(len(self.keys)):
            yield Row(
                self.starts[number],
                self.stops[number],
                self.keys[number],
                self.captions[number],
                self.image_members[number],
                members[number * self.members : (number + 1) * self.members],
                self.image_hashes[number],
                self.content_hashes[number],
                self.reasons[number],
                self.images[number],
            )


def content_hash(members: Iterable[tuple[str, int, str]]) -> str | None:
    """XXH3-128 in hex over (suffix, size, XXH3-128 of the bytes) of every member; their order does not matter.

    None when there is no member. Hashing hashes lets a member stream by without being held in memory.
    """
    return hash_of_facts([fact(*member) for member in sorted(members)])


def fact(suffix: str, size: int, digest: str) -> str:
    """What a member adds to the content hash."""
    return f"{suffix}\0{size}\0{digest}\0"


def hash_of_facts(facts: Sequence[str]) -> str | None:
    """`content_hash` of facts sorted by suffix."""
    return xxhash.xxh3_128_hexdigest("".join(facts).encode(errors="surrogatepass")) if facts else None


def split_name(name: str) -> tuple[str, str]:
    """Key and lower-case suffix of a member: the path up to the first dot of its last part, and what follows.

    The WebDataset convention. A name without one of them, as `README` or `.hidden`, has the suffix "".
    """
    folder, slash, base = name.rpartition("/")
    stem, _, suffix = base.partition(".")
    return (folder + slash + stem, suffix.lower()) if stem and suffix else (name, "")


def split_names(names: Sequence[str]) -> tuple[list[str], list[str]]:
    """Keys and suffixes of many members, each as `split_name` cuts it."""
    parts = [name.partition(".") for name in names]
    keys, suffixes = [part[0] for part in parts], [part[2].lower() for part in parts]
    if all(keys) and all(suffixes) and "/" not in "".join(names):  # nearly always
        return keys, suffixes
    split = [split_name(name) for name in names]
    return [key for key, _ in split], [suffix for _, suffix in split]


MAY_LEAD_OUT = re.compile(r"[/\\\0:]|^\.\.$")
"""A name without any of these is a plain one, as nearly all are."""


def is_unsafe(name: str) -> bool:
    """Whether a name would lead out of the folder it is unpacked in."""
    if name and not MAY_LEAD_OUT.search(name):
        return False
    parts = name.replace("\\", "/").split("/")
    return not name or "\0" in name or parts[0] == "" or ".." in parts or parts[0].endswith(":")


def read_caption(text: bytes | None) -> tuple[str | None, str | None]:
    """A caption's bytes as (caption, reason); the caption stands as it is, without a byte order mark.

    Reasons: `missing_caption` (None), `empty_caption` (nothing but white space), `caption_not_utf8`, `caption_not_text`
    (it holds NUL, which ends a string for half of what reads captions), `member_too_large`.
    """
    if text is None:
        return None, "missing_caption"
    if len(text) > MOST_CAPTION_BYTES:
        return None, "member_too_large"
    try:
        caption = text.decode().removeprefix(BYTE_ORDER_MARK)
    except UnicodeDecodeError:
        return None, "caption_not_utf8"
    if "\0" in caption:
        return None, "caption_not_text"
    return (caption, None) if caption.strip() else (caption, "empty_caption")


def caption_in_json(document: bytes) -> tuple[bytes | None, str | None]:
    """The string under `caption` or `text` of a JSON object as UTF-8, None when there is none; and a reason.

    Reasons: see `read_json_member`.
    """
    facts, reason = read_json_member(document)
    named = [facts.get(name) for name in ("caption", "text")] if isinstance(facts, dict) else []
    text = next((value for value in named if isinstance(value, str)), None)
    return (None if text is None else text.encode(errors="surrogatepass")), reason


def read_json_member(document: bytes) -> tuple[Any, str | None]:
    """A JSON member's value, and a reason.

    Reasons: `member_too_large`, `broken_json` (no JSON, or nested deeper than parsers go).
    """
    if len(document) > MOST_CAPTION_BYTES:
        return None, "member_too_large"
    try:
        return parse_json(document, exact=False), None
    except ValueError:
        return None, "broken_json"


def image_suffix(image: bytes) -> str:
    """The suffix an image's first bytes call for; `jpg` when they tell nothing, since decoders go by content."""
    for magic, place, suffix in _MAGIC:
        if image[place : place + len(magic)] == magic:
            return suffix
    return "jpg"


_MAGIC = (
    (b"\xff\xd8\xff", 0, "jpg"),
    (b"\x89PNG\r\n\x1a\n", 0, "png"),
    (b"WEBP", 8, "webp"),
    (b"GIF8", 0, "gif"),
    (b"ftypavif", 4, "avif"),
    (b"ftypavis", 4, "avif"),
    (b"ftyphei", 4, "heic"),
    (b"ftypmif1", 4, "heic"),
    (b"II*\0", 0, "tif"),
    (b"MM\0*", 0, "tif"),
    (b"\0\0\0\x0cJXL ", 0, "jxl"),
    (b"\xff\x0a", 0, "jxl"),
    (b"\0\0\0\x0cjP  ", 0, "jp2"),
    (b"P6", 0, "ppm"),
    (b"P5", 0, "pgm"),
    (b"BM", 0, "bmp"),
)

"""One sample on its way into the index, and the slice of many that a scan hands out."""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import xxhash

from pipeline.shards.foreign_json import parse_json
from schemas.tables import INDEX, MEMBER

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
    """A view keeps more in memory than itself."""

    @property
    def held_bytes(self) -> int:
        """About what it takes in memory."""
        names = sum(len(name) for name, _, _ in self.members)
        return len(self.image or b"") + len(self.caption or "") + len(self.key or "") + names


@dataclass
class Slice:
    """A contiguous run of samples of one shard."""

    index: pa.Table
    """Columns as `schemas.tables.INDEX`."""
    images: pa.Array
    """large_binary, row for row with the index; null exactly where `image_hash` is, or everywhere if not asked for."""
    image_bytes: int
    first_row: int


def cut(rows: Iterable[Row], slice_bytes: int, slice_rows: int, *, images: bool = True) -> Iterator[Slice]:
    """Rows gathered into slices: one ends when images and text exceed `slice_bytes`, or at `slice_rows` rows.

    Without `images` they are counted and let go of at once.
    """
    held: list[Row] = []
    size = image_bytes = first = 0
    for row in rows:
        held.append(row)
        size += row.held_bytes
        image_bytes += len(row.image or b"")
        row.image = bytes(row.image) if images and row.image is not None else None
        if size > slice_bytes or len(held) == slice_rows:
            piece, held, size, image_bytes = _slice(held, image_bytes, first), [], 0, 0
            first += len(piece.index)
            yield piece
            del piece  # the next slice is gathered without this one in memory
    if held:
        yield _slice(held, image_bytes, first)


def _slice(rows: list[Row], image_bytes: int, first: int) -> Slice:
    columns = {
        "key": [row.key for row in rows],
        "caption": [row.caption for row in rows],
        "image_member": [row.image_member for row in rows],
        "members": _members([row.members for row in rows]),
        "start": [row.start for row in rows],
        "stop": [row.stop for row in rows],
        "image_hash": [row.image_hash for row in rows],
        "content_hash": [row.content_hash for row in rows],
        "index_reason": [row.reason for row in rows],
    }
    index = pa.table([columns[name] for name in INDEX.names], INDEX)
    return Slice(index, image_array([row.image for row in rows]), image_bytes, first)


def image_array(images: Sequence[bytes | memoryview | None]) -> pa.Array:
    """Images as large_binary, in one allocation of their size: growing by doubling would take twice the memory."""
    sizes = [len(image or b"") for image in images]
    offsets = np.cumsum([0, *sizes], dtype=np.int64)
    there = pa.array([image is not None for image in images], pa.bool_()).buffers()[1] if None in images else None
    content = pa.py_buffer(b"".join(image for image in images if image))
    return pa.Array.from_buffers(pa.large_binary(), len(images), [there, pa.py_buffer(offsets), content])


def _members(lists: list[Sequence[tuple[str, int, int]]]) -> pa.Array:
    offsets = [0]
    for members in lists:
        offsets.append(offsets[-1] + len(members))
    flat = [member for members in lists for member in members]
    fields = [pa.array([member[place] for member in flat], MEMBER[place].type) for place in range(3)]
    return pa.ListArray.from_arrays(
        pa.array(offsets, pa.int32()),
        pa.StructArray.from_arrays(fields, fields=list(MEMBER)),
        INDEX.field("members").type,
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

    Reasons: `member_too_large`, `broken_json` (no JSON, or nested deeper than parsers go).
    """
    if len(document) > MOST_CAPTION_BYTES:
        return None, "member_too_large"
    try:
        facts = parse_json(document)
    except ValueError:
        return None, "broken_json"
    named = [facts.get(name) for name in ("caption", "text")] if isinstance(facts, dict) else []
    text = next((value for value in named if isinstance(value, str)), None)
    return (None if text is None else text.encode(errors="surrogatepass")), None


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

"""The second read: images for scores that are missing, members for the export, straight from where the index says."""

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pyarrow as pa

from pipeline.shards import arrow_records, folder_rows, parquet_records
from pipeline.shards.batch_records import Record, with_image
from pipeline.shards.beside import read_image
from pipeline.shards.container import Container
from pipeline.shards.ranges import Range, open_ranges
from pipeline.shards.records import Member
from pipeline.shards.rows import split_name
from pipeline.shards.slices import image_array
from schemas.errors import ShardError

WINDOW_BYTES = 32 << 20
"""What `read_members` holds of a tar at a time."""


def read_images(container: Container, index: pa.Table) -> pa.Array:
    """The images of these index rows, as large_binary in their order; null where the index has no image.

    A tar is read by byte ranges, a compressed one and Arrow in one pass, Parquet by row group, a folder by path.

    Raises:
        ShardError: the container cannot be read, or is not the one that was indexed (`shard_changed`).
    """
    readers = {"parquet": _record_images, "arrow": _record_images, "folder": _folder_images}
    return image_array(readers.get(container.format, _tar_images)(container, index))


def read_members(container: Container, index: pa.Table) -> Iterator[list[Member]]:
    """Per index row, in order, its members as (suffix with dot, bytes), unchanged.

    A row of Parquet, of Arrow or of a folder's table becomes its image under the suffix its content calls for, `.txt`
    with the caption, and `.json` with the other columns. Memory is bounded for rows in ascending order.

    Raises:
        ShardError: as for `read_images`.
    """
    readers = {"parquet": _record_members, "arrow": _record_members, "folder": _folder_members}
    return readers.get(container.format, _tar_members)(container, index)


def _changed(container: Container, what: str) -> ShardError:
    return ShardError(
        f"{container.path}: {what} is not there as it was indexed; the shard changed in the meantime: run again",
        "shard_changed",
    )


def _tar_images(container: Container, index: pa.Table) -> list[bytes | None]:
    places: list[Range | None] = []
    for name, members in zip(index["image_member"].to_pylist(), index["members"].to_pylist(), strict=True):
        found = next((member for member in members if name is not None and member["name"] == name), None)
        places.append(None if found is None else (found["offset"], found["size"]))
    chunks = iter(_fetched(container, [place for place in places if place is not None]))
    return [None if place is None else next(chunks) for place in places]


def _fetched(container: Container, ranges: list[Range]) -> list[bytes]:
    if not ranges:
        return []
    with open_ranges(container.path) as tar:
        return _checked(container, ranges, tar.fetch(ranges))


def _checked(container: Container, ranges: list[Range], chunks: list[bytes]) -> list[bytes]:
    for (offset, size), chunk in zip(ranges, chunks, strict=True):
        if len(chunk) != size:
            raise _changed(container, f"a member of {size} bytes at {offset}")
    return chunks


def _tar_members(container: Container, index: pa.Table) -> Iterator[list[Member]]:
    if not len(index):
        return
    rows: list[list[dict[str, Any]]] = index["members"].to_pylist()
    with open_ranges(container.path) as tar:
        for first, stop in pairwise(_windows(rows)):
            window = rows[first:stop]
            ranges = [(member["offset"], member["size"]) for row in window for member in row]
            chunks = iter(_checked(container, ranges, tar.fetch(ranges)))
            for row in window:
                yield [(f".{split_name(member['name'])[1]}", next(chunks)) for member in row]


def _windows(rows: list[list[dict[str, Any]]]) -> list[int]:
    """Borders of runs of rows of about `WINDOW_BYTES` each."""
    borders, size = [0], 0
    for number, row in enumerate(rows):
        size += sum(member["size"] for member in row)
        if size > WINDOW_BYTES:
            borders.append(number + 1)
            size = 0
    return borders if borders[-1] == len(rows) else [*borders, len(rows)]


def _wanted(container: Container, numbers: list[int], columns: list[str] | None = None) -> Iterator[Record]:
    reader = arrow_records if container.format == "arrow" else parquet_records
    for record in reader.wanted_records(container, numbers, columns):
        yield with_image(record, container)[0]


def _record_images(container: Container, index: pa.Table) -> list[bytes | None]:
    rows = _rows(index, "image_member")
    wanted = sorted({number for number, there in rows if there})
    found = {record.number: record.image for record in _wanted(container, wanted, [container.image])}
    if lost := [number for number in wanted if found.get(number) is None]:
        raise _changed(container, f"the image of row {lost[0]}")
    return [found.get(number) for number, _ in rows]


def _record_members(container: Container, index: pa.Table) -> Iterator[list[Member]]:
    for run in _ascending(_rows(index, "content_hash")):
        records = _wanted(container, [number for number, there in run if there])
        for _, there in run:
            yield next(records).members() if there else []


def _rows(index: pa.Table, there: str) -> list[tuple[int, bool]]:
    """(row or line number, whether the column `there` says that there is something to read)."""
    return list(zip(index["start"].to_pylist(), index[there].is_valid().to_pylist(), strict=True))


def _ascending(rows: list[tuple[int, bool]]) -> Iterator[list[tuple[int, bool]]]:
    """Cut into runs of ascending numbers; each is one pass over the container."""
    cuts = [place for place in range(1, len(rows)) if rows[place][0] <= rows[place - 1][0]]
    for first, stop in pairwise([0, *cuts, len(rows)]):
        yield rows[first:stop]


def _folder_images(container: Container, index: pa.Table) -> list[bytes | None]:
    sizes = [sum(member["size"] for member in members) for members in index["members"].to_pylist()]
    names = index["image_member"].to_pylist()
    return [_image(container, name, size) for name, size in zip(names, sizes, strict=True)]


def _image(container: Container, name: str | None, size: int) -> bytes | None:
    if name is None:
        return None
    image, _ = read_image(container.root, name)
    if image is None or len(image) != size:
        raise _changed(container, f"image {name!r} of {size} bytes")
    return image


def _folder_members(container: Container, index: pa.Table) -> Iterator[list[Member]]:
    for run in _ascending(_rows(index, "content_hash")):
        source = folder_rows.lines(container)
        for number, there in run:
            line = next((line for line in source if line.number == number), None) if there else None
            yield _line_members(container, line, number) if there else []


def _line_members(container: Container, line: folder_rows.Line | None, number: int) -> list[Member]:
    if line is None or line.facts is None:
        raise _changed(container, f"line {number}")
    path, text, others = folder_rows.parts(line.facts, container)
    image = None if path is None else read_image(container.root, path)[0]
    return folder_rows.members(path, image, text, others)

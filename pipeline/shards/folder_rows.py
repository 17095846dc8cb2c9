"""An image folder listed by a JSONL or CSV table; nothing outside the folder is ever read."""

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, BinaryIO, cast

from pipeline.shards.beside import ImagesDigest, below, read_image
from pipeline.shards.container import Container
from pipeline.shards.foreign_json import parse_json
from pipeline.shards.records import KEY_COLUMNS, Member, fill_hashes, record_members, require_column
from pipeline.shards.rows import Row, image_suffix, read_caption, split_name
from pipeline.shards.streams import Digesting, digest_file, open_bytes
from schemas.errors import ShardError

MOST_LINE_BYTES = 16 << 20
LINES_LOOKED_AT = 100
"""Lines in which a column has to turn up before the table is refused for lacking it."""


@dataclass(frozen=True)
class Line:
    """One line of the table; `facts` is None when it is no record."""

    number: int
    facts: dict[str, Any] | None


class FolderRows:
    """One pass over a folder: iterate the rows, then ask for the digest."""

    def __init__(self, container: Container) -> None:
        self.container = container
        self.digest = ""
        self.total = 0
        """Lines of the table that are not blank."""

    def __iter__(self) -> Iterator[Row]:
        """Rows in the table's order.

        Raises:
            ShardError: the table cannot be read or is empty.
            RecipeError: the table has no such column.
        """
        table, size = digest_file(self.container.path)
        if not size:
            raise ShardError(f"{self.container.path} holds no bytes; expected a table", "empty_shard")
        check_columns(self.container)
        images = ImagesDigest()
        for line in lines(self.container):
            row, path = _indexed(line, self.container)
            images.add(path, row.image, row.reason)
            self.total += 1
            yield row
        self.digest = images.with_table(table)


def _indexed(line: Line, container: Container) -> tuple[Row, str | None]:
    if line.facts is None:
        return Row(line.number, line.number + 1, reason="broken_table_line"), None
    path, text, others = parts(line.facts, container)
    image, reason = (None, "missing_image") if path is None else read_image(container.root, path)
    caption, caption_reason = read_caption(text)
    row = Row(line.number, line.number + 1, _key(line.facts, path), caption, reason=reason or caption_reason)
    fill_hashes(row, members(path, image, text, others), image)
    if image is not None and path is not None:
        row.image_member, row.members = path, [(path, 0, len(image))]
    return row, path


def parts(facts: dict[str, Any], container: Container) -> tuple[str | None, bytes | None, dict[str, Any]]:
    """A line as (image path, caption as UTF-8, the other columns)."""
    others = dict(facts)
    path, caption = others.pop(container.image, None), others.pop(container.caption, None)
    if isinstance(caption, list):  # the first is the caption; all of them stay with the sample
        others[container.caption] = caption
        caption = next(iter(caption), None)
    # Bytes that were no UTF-8 in a CSV, and lone surrogates in JSON, stay what they are: no UTF-8.
    text = caption.encode(errors="surrogatepass") if isinstance(caption, str) else None
    return (below(container.root, path) if isinstance(path, str) and path else None), text, others


def members(path: str | None, image: bytes | None, text: bytes | None, others: dict[str, Any]) -> list[Member]:
    """What an export of the line writes."""
    found = None if image is None or path is None else (f".{image_suffix(image)}", image)
    return record_members(found, text, others)


def _key(facts: dict[str, Any], path: str | None) -> str | None:
    named = next((facts[name] for name in KEY_COLUMNS if facts.get(name) is not None), None)
    if named is not None and not isinstance(named, (dict, list)):
        return _storable(str(named))
    return None if path is None else _storable(split_name(path)[0])


def _storable(text: str) -> str:
    return text.encode(errors="backslashreplace").decode()


def lines(container: Container) -> Iterator[Line]:
    """Every line of the table that is not blank, in order; text that is not UTF-8 keeps its bytes as surrogates."""
    is_csv = container.path.lower().endswith(".csv")
    with io.BufferedReader(Digesting(open_bytes(container.path), container.path)) as stream:
        records = (_csv_records if is_csv else _json_records)(cast(BinaryIO, stream))
        for number, facts in enumerate(records):
            yield Line(number, facts)


def _json_records(stream: BinaryIO) -> Iterator[dict[str, Any] | None]:
    while line := stream.readline(MOST_LINE_BYTES):
        too_long = not line.endswith(b"\n") and len(line) == MOST_LINE_BYTES
        while too_long and not line.endswith(b"\n") and (line := stream.readline(MOST_LINE_BYTES)):
            pass
        if too_long or line.strip():
            yield None if too_long else _json_record(line)


def _json_record(line: bytes) -> dict[str, Any] | None:
    try:
        facts = parse_json(line.decode("utf-8-sig", errors="surrogateescape"))
    except ValueError:
        return None
    return facts if isinstance(facts, dict) else None


def _csv_records(stream: BinaryIO) -> Iterator[dict[str, Any] | None]:
    csv.field_size_limit(MOST_LINE_BYTES)
    text = io.TextIOWrapper(stream, "utf-8-sig", errors="surrogateescape", newline="")
    reader = csv.DictReader(text)
    while True:
        try:
            facts = next(reader)
        except StopIteration:
            return
        except csv.Error:
            yield None
            continue
        ragged = None in facts or None in facts.values()
        yield None if ragged else facts


def check_columns(container: Container) -> None:
    """Refuse a table in whose first lines a column never turns up.

    Raises:
        ShardError: the table cannot be read.
        RecipeError: with the nearest names.
    """
    names = {name for line in islice(lines(container), LINES_LOOKED_AT) for name in line.facts or ()}
    if names:
        require_column(container.image, names, container.path, "image")
        require_column(container.caption, names, container.path, "caption")

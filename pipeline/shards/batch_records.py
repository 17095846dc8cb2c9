"""Rows of Arrow record batches as records, whatever file they come from: image, caption, everything else."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa

from pipeline.shards.beside import below, inside, read_image
from pipeline.shards.container import Container
from pipeline.shards.records import KEY_COLUMNS, Member, fill_hashes, record_members, require_column
from pipeline.shards.rows import Row, image_suffix, read_caption, split_name
from schemas.errors import RecipeError

BATCH_ROWS = 64
ARROW_FAILS = (pa.ArrowException, OSError, UnicodeDecodeError, OverflowError, MemoryError)
"""What Arrow raises on damaged files."""


@dataclass(frozen=True)
class Record:
    """A row as read: its number in the file and its parts."""

    number: int
    key: str
    image: bytes | None
    caption: bytes | None
    others: dict[str, Any]
    path: str | None = None
    """Where the image lies below the container's root, when its bytes are not in the row."""

    def members(self) -> list[Member]:
        """What an export of the row writes."""
        image = None if self.image is None else (f".{image_suffix(self.image)}", self.image)
        return record_members(image, self.caption, self.others)


def batch_records(batch: pa.RecordBatch, container: Container, first: int, digits: int) -> Iterator[Record]:
    """The rows of a batch; the first has number `first`, keys of rows without one have `digits` digits."""
    columns = [_unpacked(column) for column in batch.columns]
    for number, row in enumerate(zip(*columns, strict=True), start=first):
        values = dict(zip(batch.schema.names, row, strict=True))
        yield _record(values, number, f"{number:0{digits}d}", container)


def _unpacked(column: pa.Array) -> list[Any]:
    """A column as Python values; text stays bytes until it is known to be UTF-8."""
    if is_text(column.type):
        return _texts(text_bytes(column))
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if is_texts(column.type):
        column = column.cast(pa.large_list(pa.large_binary()))
        return [None if values is None else _texts(values) for values in column.to_pylist()]
    values: list[Any] = column.to_pylist()
    return values


def text_bytes(column: pa.Array) -> list[bytes | None]:
    """A column of text as the bytes that are there."""
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    found: list[bytes | None] = column.cast(pa.large_binary()).to_pylist()
    return found


class _Text(bytes):
    """A string's bytes, not yet known to be UTF-8."""


def _texts(values: list[bytes | None]) -> list[_Text | None]:
    return [None if value is None else _Text(value) for value in values]


def _decoded(value: Any) -> Any:
    if isinstance(value, list):
        return [_decoded(part) for part in value]
    return value.decode(errors="backslashreplace") if isinstance(value, _Text) else value


def _record(values: dict[str, Any], number: int, numbered: str, container: Container) -> Record:
    cell, caption = values.pop(container.image, None), values.pop(container.caption, None)
    image, path, rest = _image_parts(cell, container)
    values |= {container.image: rest} if rest else {}
    if isinstance(caption, list):  # the first is the caption; all of them stay with the sample
        values[container.caption] = caption
        caption = next(iter(caption), None)
    others = {name: _decoded(value) for name, value in values.items()}
    named = next((others[name] for name in KEY_COLUMNS if others.get(name) is not None), None)
    if named is None:
        named = split_name(_decoded(cell))[0] if isinstance(cell, _Text) and cell else numbered
    return Record(number, str(named), image, None if caption is None else bytes(caption), others, path)


def _image_parts(cell: Any, container: Container) -> tuple[bytes | None, str | None, dict[str, Any]]:
    """What stands in the image column as (bytes, path below the root, what else there is)."""
    if isinstance(cell, _Text):
        return None, below(container.root, cell.decode(errors="surrogateescape")) or None, {}
    if not isinstance(cell, dict):
        return cell, None, {}
    # The layout of Hugging Face datasets: the bytes, and the name the file had.
    image, path = cell.get("bytes"), cell.get("path") or ""
    rest = {name: value for name, value in cell.items() if name != "bytes" and value is not None}
    outside = image is not None or not path or not container.root
    return image, None if outside else inside(container.root, path), rest


def until_last(source: Iterator[Record], numbers: set[int]) -> Iterator[Record]:
    """The records with these numbers; what follows the last of them, which may be damaged, is not read."""
    left = len(numbers)
    while left and (record := next(source, None)) is not None:
        if record.number in numbers:
            left -= 1
            yield record


def with_image(record: Record, container: Container) -> tuple[Record, str | None]:
    """A record with its image read where that lies beside the table, and a reason where there is none.

    Raises:
        ShardError: see `read_image`.
    """
    if record.image is not None or record.path is None:
        return record, "missing_image" if record.image is None else None
    image, reason = read_image(container.root, record.path)
    return replace(record, image=image), reason


def indexed(record: Record, reason: str | None, container: Container) -> Row:
    """A record's line of the index; member offsets are row numbers, 0 for an image beside the table."""
    caption, caption_reason = read_caption(record.caption)
    row = Row(record.number, record.number + 1, record.key, caption, reason=reason or caption_reason)
    fill_hashes(row, record.members(), record.image)
    if record.image is not None:
        row.image_member = record.path or container.image
        row.members = [(row.image_member, 0 if record.path else record.number, len(record.image))]
    if record.caption is not None:
        row.members = [*row.members, (container.caption, record.number, len(record.caption))]
    return row


def is_bytes(dtype: pa.DataType) -> bool:
    """Whether a type holds bytes."""
    kinds = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view, pa.types.is_fixed_size_binary)
    return any(kind(dtype) for kind in kinds)


def is_text(dtype: pa.DataType) -> bool:
    """Whether a type holds text, dictionaries included."""
    if pa.types.is_dictionary(dtype):
        return is_text(dtype.value_type)
    return any(kind(dtype) for kind in (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view))


def is_texts(dtype: pa.DataType) -> bool:
    """Whether a type holds lists of text."""
    return (pa.types.is_list(dtype) or pa.types.is_large_list(dtype)) and is_text(dtype.value_type)


def decode_names(fields: Iterable[pa.Field]) -> None:
    """Look at every column's name, nested ones too: Arrow decodes them only then.

    Raises:
        UnicodeDecodeError: a name is damaged.
    """
    for field in fields:
        assert isinstance(field.name, str)
        decode_names(field.type.field(number) for number in range(field.type.num_fields))


def checked_schema(schema: pa.Schema, container: Container) -> None:
    """Hold a schema against what the container names.

    Raises:
        RecipeError: a missing column, with the nearest names, or a type that holds no image or caption.
    """
    for name, setting in ((container.image, "image"), (container.caption, "caption")):
        require_column(name, schema.names, container.path, setting)
        if schema.names.count(name) > 1:
            raise RecipeError(f"{container.path} has {schema.names.count(name)} columns {name!r}; expected one")
    _check_image(schema.field(container.image).type, container)
    caption = schema.field(container.caption).type
    if not (is_text(caption) or is_bytes(caption) or is_texts(caption)):
        raise RecipeError(f"{container.path}: caption column {container.caption!r} is {caption}; expected text")


def _check_image(dtype: pa.DataType, container: Container) -> None:
    where = f"{container.path}: image column {container.image!r}"
    if pa.types.is_struct(dtype) and dtype.get_field_index("bytes") >= 0:
        dtype = dtype.field("bytes").type
    if is_text(dtype) and not container.root:
        if container.format == "arrow":
            raise RecipeError(
                f"{where} holds paths; beside a remote dataset nothing is read: copy it to a local folder"
            )
        raise RecipeError(
            f"{where} holds paths and the source's first file image bytes; name it as a source of its own"
        )
    if is_bytes(dtype) and container.root and container.format == "parquet":
        raise RecipeError(f"{where} holds image bytes; expected paths: remove `root`, or name such files as a source")
    if not (is_bytes(dtype) or is_text(dtype)):
        raise RecipeError(f"{where} is {dtype}; expected image bytes or paths: name another column")

"""What a source of a recipe names: its containers; a source of another kind is refused with what to write instead."""

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import islice
from types import ModuleType

import pyarrow as pa

from pipeline.shards import arrow_records, parquet_records
from pipeline.shards.batch_records import checked_schema, is_text
from pipeline.shards.container import TAR_ENDINGS, Container
from pipeline.shards.expand import expand, filesystem_of, is_url, local_path
from pipeline.shards.folder_rows import LINES_LOOKED_AT, check_columns, lines
from pipeline.shards.huggingface import saved_files
from pipeline.shards.url_lists import LOOKED_AT_ROWS, refuse_urls, url_list
from schemas.errors import RecipeError, ShardError
from schemas.recipe import Shards

TABLE_ENDINGS = (".jsonl", ".ndjson", ".csv")


def containers(source: Shards) -> list[Container]:
    """The containers a source's patterns name, sorted by path.

    Raises:
        RecipeError: nothing found, another kind of file, a folder without its table, a missing column, URLs.
    """
    if source.shards is not None:
        paths = expand(source.shards)
        return [Container(path, _tar_format(path, paths)) for path in paths]
    if source.parquet is not None:
        return _parquet(source, expand(source.parquet))
    if source.huggingface is not None:
        return _saved(source, _saved_folders(source.huggingface))
    assert source.folder is not None and source.table is not None
    return _folders(source, expand(source.folder))


def _tar_format(path: str, paths: Sequence[str]) -> str:
    for ending, name in TAR_ENDINGS.items():
        if path.lower().endswith(ending):
            return name
    if _is_folder(path):
        raise RecipeError(f"`shards` found the folder {path!r}; expected shards: name those in it, e.g. `{path}/*.tar`")
    if not any(one.lower().endswith(tuple(TAR_ENDINGS)) for one in paths):
        _refuse_list(path)
    raise RecipeError(
        f"`shards` found {path!r}; expected {', '.join(TAR_ENDINGS)}: narrow the pattern, e.g. to `*.tar`, or name "
        "Parquet files under `parquet`, image folders under `folder` and saved datasets under `huggingface`"
    )


def _refuse_list(path: str) -> None:
    listed = url_list(path)
    if listed is not None:
        raise listed.refusal()


def _saved_folders(pattern: str | tuple[str, ...]) -> list[str]:
    try:
        return expand(pattern)
    except RecipeError as error:
        hint = "`huggingface` names a folder: `datasets.load_dataset(NAME, split=SPLIT).save_to_disk(FOLDER)` makes one"
        raise RecipeError(f"{error}; {hint}") from error


def _parquet(source: Shards, paths: list[str]) -> list[Container]:
    found = [Container(path, "parquet", source.image, source.caption) for path in paths]
    schema = next(_schemas(found), None)
    root = local_path(source.root or "")
    if root and not _is_folder(root):
        raise RecipeError(f"`root: {source.root}` is no folder; expected the one that image paths are relative to")
    if root or (schema is not None and _holds_text(schema, source.image)):
        found = [replace(one, root=root or _folder_of(one.path)) for one in found]
    return _checked(found, schema)


def _saved(source: Shards, folders: list[str]) -> list[Container]:
    found = [
        # Of a remote dataset only what is inside is read: telling that a file beside it changed would cost a read.
        Container(path, "arrow", source.image, source.caption, "" if is_url(folder) else folder)
        for folder in folders
        for path in saved_files(folder)
    ]
    found.sort(key=lambda container: container.path)
    return _checked(found, next(_schemas(found), None))


def _checked(found: list[Container], schema: pa.Schema | None) -> list[Container]:
    """Refuse columns that hold nothing of use before any work, by the first file that can be read."""
    one = found[0]
    if schema is None:
        _refuse_list(one.path)
        return found
    if _holds_text(schema, one.image):
        refuse_urls(one, _first_paths(found))
    checked_schema(schema, one)
    return found


def _holds_text(schema: pa.Schema, name: str) -> bool:
    return schema.names.count(name) == 1 and is_text(schema.field(name).type)


def _schemas(found: Sequence[Container]) -> Iterator[pa.Schema]:
    """Schemas of the files that can be read; the others are left for the scan, which accounts for them."""
    for container in found:
        with suppress(ShardError):
            yield _reader(container).read_schema(container)


def _first_paths(several: Sequence[Container]) -> list[str]:
    for container in several:
        with suppress(ShardError):
            found: list[str] = _reader(container).listed_paths(container, LOOKED_AT_ROWS)
            return found
    return []


def _reader(container: Container) -> ModuleType:
    return arrow_records if container.format == "arrow" else parquet_records


def _folder_of(path: str) -> str:
    return path.rpartition("/")[0] or "."


def _folders(source: Shards, paths: list[str]) -> list[Container]:
    assert source.table is not None
    roots = [path for path in paths if _is_folder(path)]
    if not roots:
        raise RecipeError(
            f"{source.folder!r} is no folder; expected a folder of images with the table {source.table!r}"
        )
    tables = [_table_path(root, source.table) for root in roots]
    pairs = zip(tables, roots, strict=True)
    found = [Container(table, "folder", source.image, source.caption, root) for table, root in pairs]
    for container in found:
        _check_table(container)
    return found


def _check_table(container: Container) -> None:
    """Refuse a missing column or URLs before any work; an unreadable table is left for the scan."""
    try:
        check_columns(container)
        first = [line.facts or {} for line in islice(lines(container), LINES_LOOKED_AT)]
    except ShardError:
        return
    refuse_urls(container, [facts.get(container.image) for facts in first])


def _is_folder(path: str) -> bool:
    if not is_url(path):
        return os.path.isdir(path)
    filesystem, inside = filesystem_of(path)
    return bool(filesystem.isdir(inside))


def _table_path(root: str, table: str) -> str:
    clean = root.rstrip("/")
    beside = clean.rpartition("/")[0]
    places = [local_path(table)] if is_url(table) or os.path.isabs(table) else []
    places += [] if places else [f"{clean}/{table}", f"{beside}/{table}" if beside else table]
    found = next((place for place in places if _is_file(place)), None)
    if found is not None and table.lower().endswith(TABLE_ENDINGS):
        return found
    if found is not None or not table.lower().endswith(TABLE_ENDINGS):
        _refuse_list(found or "")
        raise RecipeError(f"`table: {table}` is no table; expected one of {', '.join(TABLE_ENDINGS)}")
    raise RecipeError(f"`table: {table}` of folder {root!r} does not exist; looked for {' and '.join(places)}")


def _is_file(path: str) -> bool:
    if not is_url(path):
        return os.path.isfile(path)
    filesystem, inside = filesystem_of(path)
    return bool(filesystem.isfile(inside))

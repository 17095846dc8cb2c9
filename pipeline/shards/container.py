"""What a source names: one container per shard, with all that is needed to read it and to tell it changed."""

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import xxhash

from pipeline.shards.expand import expand, filesystem_of, is_url, local_path
from pipeline.shards.streams import opening
from schemas.errors import RecipeError, ShardError
from schemas.recipe import Shards

TAR_ENDINGS = {".tar": "tar", ".tar.gz": "tar.gz", ".tgz": "tar.gz", ".tar.zst": "tar.zst", ".tzst": "tar.zst"}
TABLE_ENDINGS = (".jsonl", ".ndjson", ".csv")
# Where object stores keep what changes with the content, best first.
STAMPS = ("ETag", "etag", "md5Hash", "mtime", "LastModified", "last_modified", "updated", "modified", "created")


@dataclass(frozen=True)
class Container:
    """One shard: what kind of container it is and how to read it. Plain values, so that it travels as JSON."""

    path: str
    """Local path or fsspec URL; of a folder container, its table."""
    format: str
    """`tar`, `tar.gz`, `parquet` or `folder`."""
    image: str = "image"
    """Parquet: column with the image. Folder: table column with the image's relative path."""
    caption: str = "caption"
    """Parquet and folder: column with the caption."""
    root: str = ""
    """Folder container: the folder that image paths are relative to, and that nothing outside of is read."""

    def settings(self) -> dict[str, str]:
        """What beside the bytes decides the index; nothing for tars, whose compression shows in their bytes."""
        if self.format.startswith("tar"):
            return {}
        facts = {"format": self.format, "image": self.image, "caption": self.caption}
        return facts | ({"table": os.path.splitext(self.path)[1].lower()} if self.format == "folder" else {})


def containers(source: Shards) -> list[Container]:
    """The containers a source's patterns name, sorted by path.

    Raises:
        RecipeError: nothing found, another kind of file, a folder without its table, a missing Parquet column.
    """
    if source.shards is not None:
        return [Container(path, _tar_format(path)) for path in expand(source.shards)]
    if source.parquet is not None:
        found = [Container(path, "parquet", source.image, source.caption) for path in expand(source.parquet)]
        _check_columns(found[0])
        return found
    assert source.folder is not None and source.table is not None
    roots = [path for path in expand(source.folder) if _is_folder(path)]
    if not roots:
        raise RecipeError(
            f"{source.folder!r} is no folder; expected a folder of images with the table {source.table!r}"
        )
    tables = [_table_path(root, source.table) for root in roots]
    pairs = zip(tables, roots, strict=True)
    return [Container(table, "folder", source.image, source.caption, root) for table, root in pairs]


def _tar_format(path: str) -> str:
    for ending, name in TAR_ENDINGS.items():
        if path.lower().endswith(ending):
            return name
    raise RecipeError(
        f"`shards` found {path!r}; expected {', '.join(TAR_ENDINGS)}: narrow the pattern, e.g. to `*.tar`, "
        "or name Parquet files under `parquet` and image folders under `folder`"
    )


def _check_columns(container: Container) -> None:
    """Refuse a missing column before any work; an unreadable file is left for the scan, which accounts for it."""
    from pipeline.shards.parquet_rows import check_schema

    try:
        check_schema(container)
    except ShardError:
        return


def _is_folder(path: str) -> bool:
    if not is_url(path):
        return os.path.isdir(path)
    filesystem, inside = filesystem_of(path)
    return bool(filesystem.isdir(inside))


def _table_path(root: str, table: str) -> str:
    if not table.lower().endswith(TABLE_ENDINGS):
        raise RecipeError(f"`table: {table}` is no table; expected one of {', '.join(TABLE_ENDINGS)}")
    clean = root.rstrip("/")
    beside = clean.rpartition("/")[0]
    places = [local_path(table)] if is_url(table) or os.path.isabs(table) else []
    places += [] if places else [f"{clean}/{table}", f"{beside}/{table}" if beside else table]
    for place in places:
        if _is_file(place):
            return place
    raise RecipeError(f"`table: {table}` of folder {root!r} does not exist; looked for {' and '.join(places)}")


def _is_file(path: str) -> bool:
    if not is_url(path):
        return os.path.isfile(path)
    filesystem, inside = filesystem_of(path)
    return bool(filesystem.isfile(inside))


def stamp(container: Container) -> tuple[int, str]:
    """Size in bytes and what changes with the content (modification time in ns, or the store's etag), unread.

    Of a folder: the summed size of its files and a hash of every file's (path, size, time).

    Raises:
        ShardError: see `streams.opening`; a directory or a device is an `unreadable_shard`.
    """
    if container.format != "folder":
        return _file_stamp(container.path)
    files = sorted([*_files_below(container.root), ("", *_file_stamp(container.path))])
    digest = xxhash.xxh3_128()
    for name, size, when in files:
        digest.update(f"{name}\0{size}\0{when}\0".encode(errors="surrogateescape"))
    return sum(size for _, size, _ in files), digest.hexdigest()


def _file_stamp(path: str) -> tuple[int, str]:
    if is_url(path):
        remote = _remote_facts(path)
        return int(remote.get("size") or 0), _remote_stamp(remote)
    with opening(path):
        facts = os.stat(path)
    if not stat.S_ISREG(facts.st_mode):
        raise ShardError(f"{path} is a directory or device; expected a file", "unreadable_shard")
    return facts.st_size, str(facts.st_mtime_ns)


def _remote_facts(path: str) -> dict[str, Any]:
    filesystem, inside = filesystem_of(path)
    with opening(path):
        facts: dict[str, Any] = filesystem.info(inside)
    if facts.get("type") == "directory":
        raise ShardError(f"{path} is a directory; expected a file", "unreadable_shard")
    return facts


def _remote_stamp(facts: dict[str, Any]) -> str:
    return next((str(facts[name]) for name in STAMPS if facts.get(name) is not None), "")


def _files_below(root: str) -> Iterator[tuple[str, int, str]]:
    """(relative path, size, stamp) of every file below a folder; links are not followed."""
    if is_url(root):
        filesystem, inside = filesystem_of(root)
        for path, facts in filesystem.find(inside, detail=True).items():
            yield path.removeprefix(inside), int(facts.get("size") or 0), _remote_stamp(facts)
        return
    for folder, _, names in os.walk(root):
        for name in names:
            facts = os.lstat(path := os.path.join(folder, name))
            yield os.path.relpath(path, root), facts.st_size, str(facts.st_mtime_ns)

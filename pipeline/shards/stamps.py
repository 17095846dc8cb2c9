"""What tells that a container changed without reading its content: sizes, times, etags."""

import os
import stat
from collections.abc import Iterator
from typing import Any

import xxhash

from pipeline.shards import arrow_records, parquet_records
from pipeline.shards.beside import below
from pipeline.shards.container import Container
from pipeline.shards.expand import filesystem_of, is_url
from pipeline.shards.rows import is_unsafe
from pipeline.shards.streams import opening
from schemas.errors import ShardError

# Where object stores keep what changes with the content, best first.
STAMPS = ("ETag", "etag", "md5Hash", "mtime", "LastModified", "last_modified", "updated", "modified", "created")

Fact = tuple[str, int, str]
"""(relative path, size, stamp) of a file."""
Listings = dict[str, dict[str, Fact]]
"""Files below remote folders, listed once for many containers."""


def stamp(container: Container, listings: Listings | None = None) -> tuple[int, str]:
    """Size in bytes and what changes with the content (modification time in ns, or the store's etag), unread.

    Where images lie beside the container: the summed size of all its files, and a hash of every file's (path, size,
    time). Of a folder these are all files in it; of Parquet and Arrow those that the image column lists.

    Raises:
        ShardError: see `streams.opening`; a directory or a device is an `unreadable_shard`.
    """
    size, when = _file_stamp(container.path)
    if not container.root:
        return size, when
    beside = sorted(_beside(container, {} if listings is None else listings))
    if not beside and container.format != "folder":
        return size, when
    digest = xxhash.xxh3_128()
    for facts in [("", size, when), *beside]:
        digest.update("{}\0{}\0{}\0".format(*facts).encode(errors="surrogateescape"))
    return size + sum(size for _, size, _ in beside), digest.hexdigest()


def _beside(container: Container, listings: Listings) -> Iterator[Fact]:
    if container.format == "folder":
        yield from _files_below(container.root)
        return
    for path in _listed(container):
        if not is_unsafe(path):
            yield _listed_fact(container.root, path, listings)


def _listed(container: Container) -> list[str]:
    listed_paths = parquet_records.listed_paths if container.format == "parquet" else arrow_records.listed_paths
    try:
        return [below(container.root, path) for path in listed_paths(container)]
    except ShardError:  # the scan accounts for it
        return []


def _listed_fact(root: str, path: str, listings: Listings) -> Fact:
    if is_url(root):
        if root not in listings:
            listings[root] = {facts[0].lstrip("/"): facts for facts in _files_below(root)}
        return listings[root].get(path, (path, 0, "missing"))
    try:
        facts = os.stat(os.path.join(root, path))
    except (OSError, ValueError):
        return path, 0, "missing"
    return path, facts.st_size, str(facts.st_mtime_ns)


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


def _files_below(root: str) -> Iterator[Fact]:
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

"""Puts a finished export into an object store: every object with one request, the manifest last.

A store has no rename. What makes the copy appear whole is the order: a reader that finds `manifest.json` finds every
file it names, and while files are replaced there is no manifest.
"""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from pipeline.shards.expand import filesystem_of
from pipeline.sidecars import read_json
from schemas.errors import CuveeError, RecipeError

MANIFEST = "manifest.json"
UNDER_WAY = "publishing.json"
"""Names whose export is being put, and which; it stands as long as the manifest does not."""
WRITERS = 16
"""Requests at the same time: a request to a store is nearly all waiting."""


class Store:
    """A folder of an object store."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        self.filesystem, self.root = filesystem_of(self.url)

    def owner(self) -> dict[str, Any] | None:
        """Name and address of the export that lies here whole, or is being put; None where there is none.

        Raises:
            RecipeError: there is something, and it is no cuvee export.
        """
        found = self.facts(MANIFEST) or self.facts(UNDER_WAY)
        if found is None and self.sizes():
            raise RecipeError(
                f"output folder {self.url} holds files that are no cuvee export; name another `export.folder`"
            )
        return found

    def facts(self, name: str) -> dict[str, Any] | None:
        """A JSON object; None where it is missing or is none of ours."""
        try:
            found = json.loads(self.filesystem.cat_file(f"{self.root}/{name}"))
        except (FileNotFoundError, ValueError):
            return None
        return found if isinstance(found, dict) and {"name", "address"} <= set(found) else None

    def sizes(self) -> dict[str, int]:
        """Relative name -> bytes of every object."""
        self.filesystem.invalidate_cache()
        try:
            found = self.filesystem.find(self.root, detail=True)
        except FileNotFoundError:
            return {}
        return {path.removeprefix(self.root).lstrip("/"): int(facts["size"] or 0) for path, facts in found.items()}

    def put(self, name: str, content: Path) -> None:
        """Put one file, with one request or an upload in parts that appears when it is complete."""
        self.filesystem.put_file(str(content), f"{self.root}/{name}")

    def put_facts(self, name: str, facts: dict[str, Any]) -> None:
        """Put a JSON object."""
        self.filesystem.pipe_file(f"{self.root}/{name}", json.dumps(facts, sort_keys=True).encode())

    def remove(self, name: str) -> None:
        """Remove one object, if it is there."""
        if self.filesystem.exists(path := f"{self.root}/{name}"):
            self.filesystem.rm_file(path)


def refuse_foreign_store(url: str, name: str) -> None:
    """A place that holds something else is never written to.

    Raises:
        RecipeError: files of unknown origin, or another recipe's export.
    """
    owner = Store(url).owner()
    if owner is not None and owner["name"] != name:
        raise RecipeError(
            f"output folder {url} holds the export of recipe {owner['name']!r}; expected it empty or from recipe "
            f"{name!r}: name another `export.folder` or recipe name"
        )


def publish(folder: Path, url: str) -> bool:
    """Put an export's files; returns whether they were there already.

    What an interrupted attempt has put is not put again: the same address means the same bytes.

    Raises:
        RecipeError: see `refuse_foreign_store`.
        CuveeError: the store fails; run again to go on.
    """
    manifest = read_json(folder / MANIFEST)
    facts = {name: manifest[name] for name in ("name", "address")}
    refuse_foreign_store(url, facts["name"])
    store = Store(url)
    try:
        there = store.facts(MANIFEST)
        if there is not None and there["address"] == facts["address"]:
            return True
        _put(store, folder, facts)
    except OSError as error:
        raise CuveeError(f"publishing to {url} failed: {error}; run again to go on where it stopped") from error
    return False


def _put(store: Store, folder: Path, facts: dict[str, Any]) -> None:
    files = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
    if store.facts(UNDER_WAY) != facts:
        _clear(store, facts)
    done = store.sizes()
    missing = [name for name, path in files.items() if name != MANIFEST and done.get(name) != path.stat().st_size]
    with ThreadPoolExecutor(WRITERS) as writers:
        list(writers.map(lambda name: store.put(name, files[name]), missing))
    store.put(MANIFEST, files[MANIFEST])
    store.remove(UNDER_WAY)


def _clear(store: Store, facts: dict[str, Any]) -> None:
    """Remove an older export; only then does what lies here under a known size count as put."""
    store.put_facts(UNDER_WAY, {**facts, "address": ""})
    store.remove(MANIFEST)
    for name in store.sizes().keys() - {UNDER_WAY}:
        store.remove(name)
    store.put_facts(UNDER_WAY, facts)

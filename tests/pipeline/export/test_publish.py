"""Exports in an object store: the manifest last, an interrupted attempt resumed, strangers respected."""

import json
import uuid
from collections.abc import Callable
from pathlib import Path

import fsspec
import pytest

from pipeline.cluster import Cluster
from pipeline.export.publish import MANIFEST, UNDER_WAY, Store, publish
from pipeline.resolve import resolve
from pipeline.run import run
from schemas.errors import CuveeError, RecipeError


@pytest.fixture
def url() -> str:
    return f"memory://{uuid.uuid4().hex}/curated"


def export(folder: Path, address: str, *names: str) -> Path:
    folder.mkdir()
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"{name} of {address}")
    (folder / MANIFEST).write_text(json.dumps({"name": "photos", "address": address}))
    return folder


def objects(url: str) -> dict[str, bytes]:
    store = Store(url)
    return {name: store.filesystem.cat_file(f"{store.root}/{name}") for name in store.sizes()}


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_an_export_is_put_once_and_replaced_whole(tmp_path: Path, url: str) -> None:
    first = export(tmp_path / "first", "a", "00000.tar", "00001.tar", "train/00000.tar")
    assert publish(first, url) is False
    assert objects(url) == files(first)
    assert publish(first, url) is True
    second = export(tmp_path / "second", "b", "00000.tar", "index.json")
    assert publish(second, url) is False
    assert objects(url) == files(second)


def test_an_interrupted_attempt_shows_no_manifest_and_is_resumed(
    tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(export(tmp_path / "old", "a", "00000.tar", "00001.tar"), url)
    new = export(tmp_path / "new", "b", "00000.tar", "00001.tar")
    whole, asked = Store.put, list[str]()

    def fails_at_the_second(self: Store, name: str, content: Path) -> None:
        asked.append(name)
        if name == "00001.tar":
            raise OSError("the store is away")
        whole(self, name, content)

    monkeypatch.setattr(Store, "put", fails_at_the_second)
    with pytest.raises(CuveeError, match="the store is away; run again"):
        publish(new, url)
    assert MANIFEST not in objects(url) and UNDER_WAY in objects(url)
    assert b" of a" not in b"".join(objects(url).values()), "files of the older export would pass for this one's"

    asked.clear()
    monkeypatch.setattr(Store, "put", lambda self, name, content: (asked.append(name), whole(self, name, content))[1])
    publish(new, url)
    assert objects(url) == files(new) and asked == ["00001.tar", MANIFEST]


def test_strangers_are_never_written_over(tmp_path: Path, url: str) -> None:
    ours = export(tmp_path / "ours", "a", "00000.tar")
    filesystem, root = fsspec.core.url_to_fs(url)
    filesystem.pipe_file(f"{root}/thesis.docx", b"years of work")
    with pytest.raises(RecipeError, match="files that are no cuvee export"):
        publish(ours, url)
    filesystem.rm_file(f"{root}/thesis.docx")
    filesystem.pipe_file(f"{root}/{MANIFEST}", json.dumps({"name": "others", "address": "z"}).encode())
    with pytest.raises(RecipeError, match="the export of recipe 'others'"):
        publish(ours, url)


def test_a_recipe_exports_to_a_store(make_pool: Callable[..., Path], ray_cluster: object, url: str) -> None:
    recipe = make_pool(extra=f"export: {{kind: webdataset, samples_per_shard: 10, folder: '{url}'}}\n")
    outcome = run(resolve(recipe), Cluster())
    assert objects(url) == files(recipe.parent / "work" / "export" / "small")
    assert outcome.record["export"]["folder"] == url
    assert run(resolve(recipe), Cluster()).record["reused"]["publish"] is True

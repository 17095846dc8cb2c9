"""Every format, read back by the libraries that it is for: each sample once, under its key, with the source's bytes."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from pipeline.sidecars import read_json
from tests.pipeline.export.conftest import SPLIT, image_of
from tests.pools import sample, write_tar

Truth = Callable[..., dict[str, dict[str, bytes]]]
SCORES = ["words", "phash", "aspect_ratio"]


def told(members: dict[str, dict[str, bytes]]) -> dict[str, list[str]]:
    """key -> [SHA-256 of the image, caption]."""
    return {key: [hashlib.sha256(image_of(m)).hexdigest(), m["txt"].decode()] for key, m in members.items()}


def row_of(key: str, members: dict[str, bytes]) -> dict[str, Any]:
    """The row that the formats with columns should hold."""
    return {
        "key": key,
        "image": image_of(members),
        "image_suffix": "jpg" if "jpg" in members else "png",
        "caption": members["txt"].decode(),
        "json": members["json"].decode() if "json" in members else None,
        "cls": members.get("cls"),
    }


def tars(folder: Path) -> list[str]:
    return [str(folder / shard["url"]) for shard in read_json(folder / "manifest.json")["shards"]]


def test_webdataset(exported: Callable[..., Path], truth: Truth) -> None:
    import webdataset as wds

    folder = exported("webdataset")
    found = {}
    for one in wds.WebDataset(tars(folder), shardshuffle=False):
        members = {name: content for name, content in one.items() if not name.startswith("__")}
        assert sorted(json.loads(members.pop("cuvee.json"))) == sorted(SCORES)
        found[one["__key__"]] = members
    assert found == truth(folder)
    assert len(found) == 70


@pytest.mark.parametrize("split", ["", *SPLIT])
def test_wids_reads_the_index(
    exported: Callable[..., Path], truth: Truth, read_elsewhere: Callable[..., Any], tmp_path: Path, split: str
) -> None:
    folder = exported("webdataset", split != "")
    assert read_elsewhere("read_wids.py", folder / split / "index.json", tmp_path) == told(truth(folder, split))


def test_open_clip_trains_on_it(
    exported: Callable[..., Path], truth: Truth, read_elsewhere: Callable[..., Any]
) -> None:
    """It shuffles and hands out no keys: samples are told by their captions, of which each sample has its own."""
    folder = exported("webdataset")
    manifest = read_json(folder / "manifest.json")
    pattern = f"{folder}/{{00000..{len(manifest['shards']) - 1:05d}}}.tar"
    count, found = read_elsewhere("read_open_clip.py", pattern, manifest["samples"])
    assert count == 70
    assert sorted(found) == sorted([[48, 48], members["txt"].decode()] for members in truth(folder).values())


def test_ray_data_reads_the_tars(exported: Callable[..., Path], truth: Truth, ray_cluster: Any) -> None:
    folder = exported("webdataset")
    rows = ray_cluster.data.read_webdataset(tars(folder), decoder=None).take_all()
    found = {}
    for row in rows:  # a member that a sample has not is a NaN
        members = {name: value for name, value in row.items() if isinstance(value, bytes) and name != "cuvee.json"}
        found[row["__key__"]] = members
    assert found == truth(folder)
    assert len(rows) == 70


@pytest.mark.parametrize("split", ["", *SPLIT])
def test_ray_data_reads_the_parquet(exported: Callable[..., Path], truth: Truth, ray_cluster: Any, split: str) -> None:
    folder = exported("parquet", split != "")
    paths = [path for path in tars(folder) if split in path.removeprefix(str(folder))]
    rows = ray_cluster.data.read_parquet(paths).take_all()
    scores = [[row.pop(name) for name in SCORES] for row in rows]
    assert all(None not in line for line in scores)
    expected = [row_of(key, members) for key, members in truth(folder, split).items()]
    assert sorted(rows, key=lambda row: row["key"]) == sorted(expected, key=lambda row: row["key"])


def test_every_parquet_shard_has_one_schema_and_the_declared_scores(exported: Callable[..., Path]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    schemas = [pq.read_schema(path) for path in tars(exported("parquet"))]
    assert len(schemas) == 5
    assert all(schema.equals(schemas[0], check_metadata=True) for schema in schemas)
    assert [schemas[0].field(name).type for name in SCORES] == [pa.int32(), pa.uint64(), pa.float32()]
    scores = pl.concat([pl.read_parquet(path, columns=SCORES) for path in tars(exported("parquet"))])
    assert scores["phash"].max() > 2**63  # type: ignore[operator]


@pytest.mark.parametrize("split", ["", *SPLIT])
def test_mosaicml_streaming(
    exported: Callable[..., Path], truth: Truth, read_elsewhere: Callable[..., Any], split: str
) -> None:
    folder = exported("mds", split != "")
    rows = read_elsewhere("read_mds.py", folder, *([split] if split else []))
    for row in rows:
        assert [type(row.pop(name)) for name in SCORES] == [int, int, float]
    expected = [row_of(key, members) for key, members in truth(folder, split).items()]
    absent = {"json": "", "cls": b""}
    told = [{name: absent[name] if value is None else value for name, value in row.items()} for row in expected]
    as_told = [row | {"image": row["image"].hex(), "cls": row["cls"].hex()} for row in told]
    assert sorted(rows, key=lambda row: row["key"]) == sorted(as_told, key=lambda row: row["key"])


@pytest.mark.parametrize("split", ["train", "holdout"])
def test_energon(exported: Callable[..., Path], truth: Truth, read_elsewhere: Callable[..., Any], split: str) -> None:
    folder = exported("energon", True)
    found = read_elsewhere("read_energon.py", folder, split)
    assert found == {key: [[3, 48, 48], m["txt"].decode()] for key, m in truth(folder, split).items()}


MERGING = """select: [{kind: bimodal_duplicates, images: exact, merge_captions: true}]
export: {kind: energon, columns: [captions]}
"""


def test_energon_gives_all_captions_of_a_merged_sample(
    make_pool: Callable[..., Path], ray_cluster: object, read_elsewhere: Callable[..., Any]
) -> None:
    from pipeline.cluster import Cluster
    from pipeline.resolve import resolve
    from pipeline.run import run

    recipe = make_pool(extra=MERGING)
    again = {**sample(1), "__key__": b"again", "txt": b"the same picture, told otherwise"}
    write_tar(recipe.parent / "pool" / "alpha" / "again.tar", [again])
    with Cluster(workers=2) as cluster:
        folder = run(resolve(recipe), cluster).resolved.export_folder
    described = folder / ".nv-meta" / "dataset.yaml"
    usual = described.read_text()
    assert "caption: txt,json[caption],json[text]\n" in usual
    described.write_text(usual.replace("txt,json[caption],json[text]", "cuvee.json[captions]"))
    captions = [caption for _, caption in read_elsewhere("read_energon.py", folder, "train").values()]
    merged = [told for told in captions if len(told) > 1]
    assert len(captions) == 48 and [sorted(told) for told in merged] == [
        sorted([sample(1)["txt"].decode(), "the same picture, told otherwise"])
    ]


@pytest.mark.parametrize("split", [False, True])
def test_energon_would_prepare_the_same(
    exported: Callable[..., Path], truth: Truth, read_elsewhere: Callable[..., Any], tmp_path: Path, split: bool
) -> None:
    folder = exported("energon", split)
    members = {f"{key}.{name}": body.hex() for key, m in truth(folder).items() for name, body in m.items()}
    (tmp_path / "members.json").write_text(json.dumps(members))
    answer = read_elsewhere("prepare_energon.py", folder, tmp_path / "copy", tmp_path / "members.json")
    assert answer == {"different_indexes": [], "different_tables": [], "same_counts": True, "wrong_members": []}


@pytest.mark.parametrize("split", [False, True])
def test_datasets_opens_the_folder(
    exported: Callable[..., Path], truth: Truth, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, split: bool
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    datasets = pytest.importorskip("datasets")
    folder = exported("huggingface", split)
    data = datasets.load_dataset(str(folder), cache_dir=str(tmp_path))
    assert set(data) == (set(SPLIT) if split else {"train"})
    assert data["train"][0]["image"].size == (48, 48)
    for part, rows in data.items():
        raw = rows.cast_column("image", datasets.Image(decode=False))
        found = {row["key"]: row | {"image": row["image"]["bytes"]} for row in raw.remove_columns(SCORES)}
        expected = truth(folder, f"data/{part}")
        assert found == {key: row_of(key, members) for key, members in expected.items()}
    streamed = datasets.load_dataset("parquet", data_dir=str(folder / "data"), streaming=True)
    assert next(iter(streamed["train"]))["image"].size == (48, 48)
    files = [str(path) for path in sorted((folder / "data").glob("train-*"))]
    flat = datasets.load_dataset("parquet", data_files=files, cache_dir=str(tmp_path))["train"]
    assert flat.features == data["train"].features

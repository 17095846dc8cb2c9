"""Samples read straight from the pool: those that exported tars would hold, and the same training."""

import gzip
import json
import pickle
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from pipeline.cluster import Cluster
from pipeline.export import Draws, export
from pipeline.proof import ARM
from pipeline.resolve import resolve
from pipeline.run import Clock, begin, run
from pipeline.train import Arm, compare
from pipeline.training.feeding import feed
from schemas.errors import CuveeError, RecipeError, ShardError
from stages.train.image_places import image_again
from stages.train.members import with_sources
from stages.train.samples import read_pairs
from stages.train.settings import TrainSettings
from tests.pools import picture

MODELS = Path(__file__).resolve().parents[3] / "pipeline" / "demo" / "models"


@pytest.fixture
def pool(make_pool):
    """Tars, a compressed tar, Parquet with images inside, and an image folder, of eight samples each."""

    def make(folder: str = "project", **changed: object) -> Path:
        path = make_pool(shards=1, rows=8, folder=folder)
        home, document = path.parent, yaml.safe_load(path.read_text())
        plain = home / "pool" / "beta" / "00000.tar"
        with gzip.open(home / "pool" / "beta" / "packed.tar.gz", "wb") as packed:
            packed.write(plain.read_bytes())
        plain.unlink()
        images, captions = [picture(n) for n in range(30, 38)], [f"row {n} of a table" for n in range(8)]
        pq.write_table(
            pa.table({"image": images, "caption": captions}), home / "pool" / "rows.parquet", row_group_size=3
        )
        (home / "pool" / "files").mkdir()
        for n, image in enumerate(images):
            (home / "pool" / "files" / f"{n}.jpg").write_bytes(image[::-1] if n == 7 else picture(60 + n))
        lines = [json.dumps({"image": f"{n}.jpg", "caption": f"file {n}"}) for n in range(8)]
        (home / "pool" / "files" / "lines.jsonl").write_text("\n".join(lines))
        document["pool"] = [
            {"source": "alpha", "shards": "pool/alpha/*.tar"},
            {"source": "beta", "shards": "pool/beta/*.tar.gz"},
            {"source": "rows", "parquet": "pool/*.parquet"},
            {"source": "files", "folder": "pool/files", "table": "lines.jsonl"},
        ]
        path.write_text(yaml.safe_dump({**document, **changed}))
        return path

    return make


HELD = pa.table({"key": ["a", "b"], "image": [picture(900), picture(901)], "caption": ["one", "two"]})


def shipped(**changed: object) -> TrainSettings:
    """Around the models that ship with cuvee."""
    given = {
        "vision_model": f"local-dir:{MODELS / 'encoder'}", "language_model": str(MODELS / "language_model"),
        "budget": {"steps": 4}, "batch": 8, "seeds": 1, "generated": 2,
    }  # fmt: skip
    return TrainSettings.model_validate({**given, **changed})


def drawn(path: Path) -> Draws:
    """Every sound sample of the pool, some of them twice or three times."""
    outcome = begin(resolve(path), Cluster(), Clock(), lambda _: True, lambda *_: None)
    uids = outcome.chosen.survivors["uid"].sort()
    often = pl.Series([1 + n % 3 for n in range(len(uids))], dtype=pl.Int32)
    return Draws(outcome.chosen.table, pl.DataFrame({"uid": uids, "repeats": often}), ARM, {"arm": "all"})


def test_a_feed_gives_what_tars_would_hold(pool, tmp_path: Path, ray_cluster: object) -> None:
    draws = drawn(pool())
    reads = pickle.loads(pickle.dumps(feed(draws, tmp_path / "fed")))
    manifest, _ = export(draws, tmp_path / "tars", "small-all", Cluster())
    tars = [str(tmp_path / "tars" / shard["url"]) for shard in manifest["shards"]]

    def told(pairs):
        return sorted((pair.key, pair.image, pair.caption) for pair in pairs)

    fed = told(reads())
    assert fed == told(read_pairs(tars)) and len(fed) == draws.samples > 31
    assert not list((tmp_path / "fed").glob("*.tar"))
    described = {pair.key: pair.columns for pair in feed(draws, tmp_path / "fed", ("min_side_px", "nothing"))()}
    sources = {pair.key: pair.columns["source"] for pair in with_sources(read_pairs(tars), tars)}
    assert {key: columns["source"] for key, columns in described.items()} == sources
    sides = draws.table.scores("pool", ["min_side_px"]).collect().select("uid", "min_side_px").iter_rows()
    known = dict(sides)
    assert all(
        columns == {"source": sources[key], "min_side_px": known[key.split("-")[0]]}
        for key, columns in described.items()
    )
    (Path(draws.table.resolved.folder) / "pool" / "files" / "0.jpg").write_bytes(b"changed")
    with pytest.raises(ShardError, match="not what it was when it was scored"):
        told(reads())


def test_training_is_the_same_from_tars_and_from_the_pool(pool, tmp_path: Path, ray_cluster: object) -> None:
    if not (MODELS / "encoder").is_dir():
        pytest.skip("the shipped models are not in pipeline/demo/models; train them with jobs/train_demo_*.py")
    draws = drawn(pool())
    manifest, _ = export(draws, tmp_path / "tars", "small-all", Cluster())
    tars = tuple(str(tmp_path / "tars" / shard["url"]) for shard in manifest["shards"])
    arms = [Arm("curated", tars), Arm("fed", pairs=feed(draws, tmp_path / "fed"))]
    found = compare(shipped(), arms, HELD, tmp_path / "run", seed=1)
    assert found["arms"]["curated"]["samples"] == draws.samples
    assert found["arms"]["fed"] == found["arms"]["curated"]
    assert {line["mean"] for line in found["differences"]} == {0.0}
    with pytest.raises(CuveeError, match=r"lies in .*(parquet|gz), which gives no image by itself.*`features: cached`"):
        compare(shipped(features="online"), arms[1:], HELD, tmp_path / "refused", seed=1)


def test_a_feed_of_tars_and_folders_gives_images_one_by_one(pool, tmp_path: Path, ray_cluster: object) -> None:
    files = {"source": "files", "folder": "pool/files", "table": "lines.jsonl"}
    draws = drawn(pool(pool=[{"source": "alpha", "shards": "pool/alpha/*.tar"}, files]))
    reads = pickle.loads(pickle.dumps(feed(draws, tmp_path / "fed")))
    pairs = list(reads())
    assert len(pairs) == draws.samples > 20
    assert all(pair.again is not None and pair.again() == pair.image for pair in pairs[::-1])
    if not (MODELS / "encoder").is_dir():
        pytest.skip("the shipped models are not in pipeline/demo/models; train them with jobs/train_demo_*.py")
    found = [
        compare(shipped(features=way), [Arm("fed", pairs=reads)], HELD, tmp_path / way, seed=1)["arms"]["fed"]["runs"]
        for way in ("cached", "online")
    ]
    assert found[0] == found[1]
    (Path(draws.table.resolved.folder) / "pool" / "files" / "0.jpg").write_bytes(picture(1))
    pair = next(pair for pair in pairs if pair.image == picture(60))
    with pytest.raises(CuveeError, match=r"bytes read from .*lines\.jsonl are not those of image"):
        image_again(pair.image_hash, pair.again)


def test_an_export_that_writes_no_shards_says_what_it_would_hold(pool, ray_cluster: object) -> None:
    path = pool(export={"samples": 20, "split": {"train": 0.7, "rest": 0.3}, "materialize": False})
    outcome = run(resolve(path), Cluster(), until="export")
    folder = path.parent / "work" / "export" / "small"
    assert sorted(file.name for file in folder.iterdir()) == [
        "README.md", "manifest.json", "members.parquet", "weights.json",
    ]  # fmt: skip
    members = pl.read_parquet(folder / "members.parquet")
    assert len(members) == 20 and set(members["exported_shard"]) == {"train/", "rest/"}
    weights = json.loads((folder / "weights.json").read_text())
    assert np.isclose(sum(line["weight"] for line in weights.values()), 1)
    assert sum(sum(line["shards"].values()) for line in weights.values()) == 20
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    path.write_text(path.read_text().replace("materialize: false", "materialize: true"))
    run(resolve(path), Cluster(), until="export")
    tarred = pl.read_parquet(folder / "members.parquet").drop("exported_shard")
    assert tarred.equals(members.drop("exported_shard")) and list(folder.rglob("*.tar"))
    path.write_text(path.read_text().replace("materialize: true", "materialize: false"))
    run(resolve(path), Cluster(), until="export")
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before
    assert outcome.record["export"]["shards"] == 0
    with pytest.raises(RecipeError, match="writes none"):
        resolve(pool(folder="other", export={"materialize": False, "columns": ["words"]}))

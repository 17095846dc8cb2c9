"""The real pool, one shard per source, with the committed recipe's rules and the real dual encoder."""

from pathlib import Path

import polars as pl
import pytest
import yaml

from pipeline.cluster import Cluster
from pipeline.resolve import resolve
from pipeline.run import Outcome, run

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def outcome(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    if not (shared / "models" / "tiny-dual-encoder").is_dir():
        pytest.skip("the real dual encoder ../shared/models/tiny-dual-encoder is not here")
    home = ROOT / "jobs" / "recipes"
    text = (home / "real-pool.yaml").read_text().replace("../../../shared", str(shared)).replace("*.tar", "00000.tar")
    recipe = yaml.safe_load(text)
    recipe["workspace"] = str(tmp_path_factory.mktemp("real") / "work")
    recipe["select"] = [{**step, "samples": 600} if step["kind"] == "dsir" else step for step in recipe["select"]]
    recipe["export"]["samples"] = 500
    del recipe["train"]
    path = tmp_path_factory.mktemp("recipe") / "real-pool.yaml"
    path.write_text(yaml.safe_dump(recipe))
    with Cluster(workers=2) as cluster:
        return run(resolve(path), cluster)


def share(frame: pl.DataFrame, source: str) -> float:
    return float((frame["source"] == source).mean())  # type: ignore[arg-type]


def test_every_sample_is_accounted_for(outcome: Outcome) -> None:
    pool = outcome.ledger.filter(pl.col("role") == "pool")
    assert dict(pool.group_by("source").len().iter_rows()) == {
        "photos": 500,
        "fashion": 1000,
        "electronics": 150,
        "emoji": 175,
    }
    assert not (pool["status"] == "quarantined").any()
    assert outcome.manifest is not None
    assert outcome.manifest["samples"] == 500


def test_photos_are_weighed_above_their_natural_share(outcome: Outcome) -> None:
    assert outcome.blend is not None
    photos = outcome.blend.shares["photos"]
    assert photos["ideal"] > photos["pool"]
    assert photos["realised"] > photos["pool"]


def test_the_targets_captions_prefer_photos_over_product_titles(outcome: Outcome) -> None:
    dsir = next(step for step in outcome.chosen.decisions if step.kind == "dsir")
    lost = dsir.verdict.dropped.join(outcome.ledger.select("uid", "source"), on="uid")
    kept = outcome.chosen.survivors
    before = pl.concat([lost.select("source"), kept.select("source")])
    assert share(kept, "photos") > 1.5 * share(before, "photos")
    assert share(kept, "fashion") < share(before, "fashion")


def test_the_fashion_pools_exact_duplicates_are_found(outcome: Outcome) -> None:
    identity = outcome.chosen.table.samples
    expected = identity.filter(pl.col("role") == "pool")
    copies = len(expected) - expected["image_hash"].n_unique()
    found = next(step for step in outcome.chosen.decisions if step.kind == "exact_duplicates").verdict.dropped
    assert len(found) == copies
    pairs = found.join(identity, on="uid").join(identity, left_on="duplicate_of", right_on="uid")
    assert (pairs["image_hash"] == pairs["image_hash_right"]).all()

"""Real photos with planted damage: every good pair is kept, every bad one named, none slips through."""

from pathlib import Path

import polars as pl
import pytest
import yaml

from bench.corrupt_pool import WHOLE_IN_LAST, Truth, build
from pipeline.cluster import Cluster
from pipeline.resolve import resolve
from pipeline.run import run

RECIPE = {
    "name": "corrupt",
    "workspace": "./work",
    "pool": [{"source": "photos", "shards": "pool/*.tar"}],
    "score": [{"kind": "image_header"}, {"kind": "caption_text"}],
}


@pytest.fixture(scope="module")
def judged(shared: Path, ray_cluster: object, tmp_path_factory: pytest.TempPathFactory) -> tuple[Truth, pl.DataFrame]:
    home = tmp_path_factory.mktemp("corrupt")
    truth = build(shared / "data", home / "pool")
    (home / "recipe.yaml").write_text(yaml.safe_dump(RECIPE))
    with Cluster(workers=2) as cluster:
        return truth, run(resolve(home / "recipe.yaml"), cluster).ledger


def test_the_pool_is_the_one_peers_were_measured_on(judged: tuple[Truth, pl.DataFrame]) -> None:
    truth, _ = judged
    assert (len(truth.good), len(truth.bad), len(truth.gone)) == (1802, 96, 102)


def test_every_good_pair_is_kept_and_no_other(judged: tuple[Truth, pl.DataFrame]) -> None:
    truth, ledger = judged
    assert ledger.filter(pl.col("status") == "kept")["key"].sort().to_list() == sorted(truth.good)


def test_every_bad_pair_is_named_with_its_reason_and_the_cut_is_one_row(judged: tuple[Truth, pl.DataFrame]) -> None:
    truth, ledger = judged
    bad = ledger.filter(pl.col("status") != "kept")
    assert set(bad["status"]) == {"quarantined"}
    assert dict(bad.select("key", "reason").iter_rows()) == truth.bad | {truth.gone[0]: "truncated_shard"}
    assert len(bad) == len(truth.bad) + 1
    tail = ledger.filter(pl.col("shard").str.ends_with("00007.tar")).sort("row")
    assert len(tail) == WHOLE_IN_LAST + 1 and tail["reason"][-1] == "truncated_shard"

"""What a re-curation hands to a trainer that goes on."""

import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from pipeline.cluster import Cluster
from pipeline.continual import total_variation
from pipeline.resolve import resolve
from pipeline.run import Outcome, finish, run
from tests.pools import sample, write_tar

EXPORT = "export: {kind: webdataset}\n"


@pytest.fixture
def ran(make_pool: Callable[..., Path], ray_cluster: object) -> Callable[[Path], Outcome]:
    def once(recipe: Path) -> Outcome:
        outcome = run(resolve(recipe), Cluster(), until="export")
        finish(outcome)
        return outcome

    return once


def grown(recipe: Path, source: str, first: int) -> None:
    write_tar(recipe.parent / "pool" / source / "00009.tar", [sample(number) for number in range(first, first + 8)])


def test_a_first_run_and_an_unchanged_one_have_nothing_to_go_on_from(
    make_pool: Callable[..., Path], ran: Callable[[Path], Outcome]
) -> None:
    recipe = make_pool(extra=EXPORT)
    for outcome in (ran(recipe), ran(recipe)):
        assert outcome.record["continual"] is None and not (outcome.folder / "continual.json").exists()


def test_new_samples_of_known_sources_are_a_weak_shift(
    make_pool: Callable[..., Path], ran: Callable[[Path], Outcome]
) -> None:
    recipe = make_pool(extra=EXPORT)
    first = ran(recipe)
    grown(recipe, "alpha", 500)
    second = ran(recipe)
    facts = json.loads((second.folder / "continual.json").read_text())
    assert facts["since"]["run"] == first.name
    assert facts["samples"] == {"new": 8, "kept": 48, "gone": 0}
    # Half of what was there came from alpha, all of what is new does.
    assert facts["shift"]["value"] == 0.5 and facts["shift"]["kind"] == "weak"
    assert facts["replay"]["share"] == 0.05 and facts["epochs"] == 3
    assert facts["draw"] == {"new": 24, "kept": round(24 * 0.05 / 0.95)}
    assert facts["learning_rate"] == {"rewarm": "linear", "to": "the original peak", "decay": "cosine"}
    parts = pl.read_parquet(second.folder / "continual.parquet")
    exported = set()
    for shard in set(parts["exported_shard"]):
        with tarfile.open(second.resolved.export_folder / shard) as archive:
            exported |= {member.name.split(".")[0] for member in archive}
    assert set(parts["exported_key"]) == exported and len(parts) == 56
    members = pl.read_parquet(second.resolved.export_folder / "members.parquet")
    new = members.join(parts.filter(part="new"), on="exported_key", how="semi")
    assert set(new["source"]) == {"alpha"} and len(new) == 8
    assert first.manifest is not None and second.manifest is not None
    assert "continual" not in second.manifest, "an export knows nothing of earlier ones"


def test_a_new_source_is_a_strong_shift(make_pool: Callable[..., Path], ran: Callable[[Path], Outcome]) -> None:
    recipe = make_pool(extra=EXPORT + "train: {vision: image_header, learning_rate: 0.002}\n")
    ran(recipe)
    grown(recipe, "gamma", 900)
    recipe.write_text(
        recipe.read_text().replace("pool:\n", 'pool:\n  - {source: gamma, shards: "pool/gamma/*.tar"}\n', 1)
    )
    facts = ran(recipe).record["continual"]
    assert facts["shift"] == {
        "value": 1.0, "measure": "total variation of source shares", "strong_above": 0.5, "kind": "strong"
    }  # fmt: skip
    assert facts["replay"]["share"] == 0.25 and facts["draw"] == {"new": 24, "kept": 8}
    assert facts["learning_rate"]["peak"] == 0.002


def test_total_variation() -> None:
    assert total_variation({"a": 1.0}, {"b": 1.0}) == 1.0
    assert total_variation({"a": 0.25, "b": 0.75}, {"a": 0.75, "b": 0.25}) == 0.5
    noise = np.random.default_rng(0)
    left, right = ({str(i): float(p) for i, p in enumerate(noise.dirichlet(np.ones(5)))} for _ in range(2))
    assert total_variation(left, right) == total_variation(right, left) < 1

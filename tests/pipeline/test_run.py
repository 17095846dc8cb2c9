"""The engine end to end on a small generated pool: what is computed, what is kept, what adds up."""

import json
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow.parquet as pq
import pytest

from pipeline.cluster import Cluster
from pipeline.explain import story, story_text
from pipeline.ledger import read_ledger
from pipeline.resolve import resolve
from pipeline.run import Outcome, finish, run
from schemas.errors import CuveeError
from tests.pools import sample, write_tar

SELECT = """select:
  - {kind: at_least, column: words, value: 3}
  - {kind: exact_duplicates}
export: {kind: webdataset, samples: 20, samples_per_shard: 8, columns: [words]}
"""


def done(recipe: Path, **options: Any) -> Outcome:
    with Cluster(workers=2) as cluster:
        outcome = run(resolve(recipe), cluster, **options)
    finish(outcome)
    return outcome


@pytest.fixture
def project(make_pool: Callable[..., Path], ray_cluster: object) -> Path:
    return make_pool(extra=SELECT)


def members(folder: Path) -> dict[str, bytes]:
    """name -> bytes of everything in the exported tars, read by the standard library."""
    found = {}
    for path in sorted(folder.glob("*.tar")):
        with tarfile.open(path) as archive:
            for member in archive:
                stream = archive.extractfile(member)
                assert stream is not None
                found[member.name] = stream.read()
    return found


def test_a_run_accounts_for_every_sample_and_exports_the_sources_bytes(project: Path) -> None:
    outcome = done(project)
    ledger = read_ledger(outcome.folder / "ledger")
    assert len(ledger) == 2 * 2 * 12 + 12
    assert ledger["uid"].n_unique() == len(ledger)
    kept = ledger.filter((pl.col("status") == "kept") & (pl.col("role") == "pool"))
    assert len(kept) == 20
    assert set(ledger.filter(pl.col("status") == "dropped")["reason"]) == {"not_drawn"}

    exported = members(outcome.resolved.export_folder)
    sources = {}
    for path in (project.parent / "pool").rglob("*.tar"):
        sources |= members(path.parent)
    listing = pl.read_parquet(outcome.resolved.export_folder / "members.parquet")
    assert len(listing) == 20
    for line in listing.iter_rows(named=True):
        for suffix in ("jpg", "txt", "json"):
            assert exported[f"{line['exported_key']}.{suffix}"] == sources[f"{line['key']}.{suffix}"]
        assert json.loads(exported[f"{line['exported_key']}.cuvee.json"]) == {"words": 9}
    sizes = [
        shard["nsamples"]
        for shard in json.loads((outcome.resolved.export_folder / "index.json").read_text())["shardlist"]
    ]
    assert sizes == [8, 8, 4]


def test_an_unchanged_recipe_computes_nothing(project: Path) -> None:
    first, second = done(project), done(project)
    assert first.record["computed"] > 0
    assert second.record["computed"] == 0
    assert all(step["reused"] for step in second.record["steps"])
    assert second.record["reused"] == {"export": True}


def test_a_changed_threshold_recomputes_no_score(project: Path) -> None:
    done(project)
    project.write_text(project.read_text().replace("value: 3", "value: 4"))
    second = done(project)
    assert second.record["computed"] == 0
    assert [step["reused"] for step in second.record["steps"]] == [False, False]


def test_a_new_shard_is_the_only_one_scored(project: Path) -> None:

    done(project)
    write_tar(project.parent / "pool" / "alpha" / "00009.tar", [sample(number) for number in range(500, 505)])
    second = done(project)
    assert {line["kind"]: line["computed"] for line in second.record["stages"]} == {
        "index": 1,
        "image_header": 1,
        "caption_text": 1,
        "perceptual_hash": 1,
    }


def test_a_renamed_shard_costs_no_score(project: Path) -> None:
    done(project)
    shard = project.parent / "pool" / "alpha" / "00000.tar"
    shard.rename(shard.with_name("renamed.tar"))
    second = done(project)
    assert second.record["computed"] == 0


def test_a_new_stage_reads_the_known_shards_by_range(project: Path) -> None:
    text = project.read_text()
    project.write_text(text.replace("  - {kind: perceptual_hash}\n", ""))
    done(project)
    project.write_text(text)
    second = done(project)
    assert {line["kind"]: line["computed"] for line in second.record["stages"]} == {
        "index": 0,
        "image_header": 0,
        "caption_text": 0,
        "perceptual_hash": 5,
    }
    fresh = project.parent / "fresh"
    shutil.copytree(project.parent, fresh, ignore=shutil.ignore_patterns("work", "fresh"))
    again = done(fresh / "recipe.yaml")
    address = second.resolved.addresses["perceptual_hash"]
    for path in (second.resolved.workspace.root / "scores" / address).glob("*.parquet"):
        twin = again.resolved.workspace.sidecar(address, path.stem)
        assert pq.read_table(path).equals(pq.read_table(twin))
        assert path.read_bytes() == twin.read_bytes()


def test_a_broken_shard_is_a_ledger_row_and_the_run_goes_on(project: Path) -> None:
    shard = project.parent / "pool" / "beta" / "00001.tar"
    shard.write_bytes(b"this is no tar at all" * 100)
    outcome = done(project)
    bad = outcome.ledger.filter(pl.col("status") == "quarantined")
    assert bad.select("source", "key", "decided_by").rows() == [("beta", None, "ingest")]
    assert len(outcome.ledger) == 3 * 12 + 12 + 1


def test_asking_for_more_than_is_left_fails_with_both_numbers(project: Path) -> None:
    project.write_text(project.read_text().replace("samples: 20", "samples: 400"))
    with pytest.raises(CuveeError, match=r"400.*48"):
        done(project)
    assert not (project.parent / "work" / "export").exists()


def test_explain_tells_a_samples_story(project: Path) -> None:
    outcome = done(project)
    line = outcome.ledger.filter(pl.col("reason") == "not_drawn").row(0, named=True)
    facts = story(outcome.folder, line["uid"][:16])
    assert (facts["status"], facts["decided_by"]) == ("dropped", "mix")
    assert facts["scores"]["width_px"] == 48
    assert facts["shares"]["realised"] == 0.5 and "share of alpha: pool 0.5" in story_text(facts | {"source": "alpha"})
    with pytest.raises(CuveeError, match="expected 1"):
        story(outcome.folder, "no such uid")

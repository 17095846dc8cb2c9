"""DSIR over a pool that is judged in parts, for the recipe's target and a set of its references at once."""

import polars as pl

import pipeline.select as fold
from pipeline.cluster import Cluster
from pipeline.explain import story, story_text
from pipeline.ledger import read_ledger
from pipeline.resolve import resolve
from pipeline.run import finish, run
from tests.pools import sample, write_tar

RECIPE = """
references: {news: {shards: "news/*.tar"}}
select:
  - {kind: dsir, targets: {target: 0.4, news: 0.6}, fraction: 0.5}
"""


def test_parts_on_the_cluster_draw_for_two_targets_as_the_whole_does(make_pool, ray_cluster, monkeypatch):
    found = []
    for folder, rows_per_part in (("whole", 10**6), ("parts", 10)):
        monkeypatch.setattr(fold, "ROWS_PER_PART", rows_per_part)
        recipe = make_pool(shards=3, rows=8, folder=folder, shuffled=folder == "parts", extra=RECIPE)
        write_tar(recipe.parent / "news" / "00000.tar", [sample(number) for number in range(40_000, 40_006)])
        outcome = run(resolve(recipe), Cluster(), until="select")
        ledger = read_ledger(outcome.folder / "ledger").drop("shard").sort("role", "source", "uid")
        found.append((ledger, outcome.record["steps"][0]["evidence"]))
    assert found[0][0].equals(found[1][0])
    assert found[0][1] == found[1][1]
    pool, evidence = found[0][0].filter(pl.col("role") == "pool"), found[0][1]
    assert dict(pool["status"].value_counts().iter_rows()) == {"dropped": 24, "kept": 24}
    assert pool["score"].null_count() == pool["importance"].null_count() == 0 and set(evidence["targets"]) == {
        "target",
        "news",
    }
    assert evidence["targets"]["news"]["share"] == 0.6
    finish(outcome)
    for status, words in (
        ("kept", "  kept, weight 1, score {}, drawn 1 times"),
        ("dropped", "    ranked by {}, the highest"),
    ):
        line = pool.filter(pl.col("status") == status).row(0, named=True)
        told = f"{line['score']:.6g} (importance {line['importance']:.6g}, the rest is noise)"
        told += " by the last selector" if status == "kept" else ""
        assert words.format(told) in story_text(story(outcome.folder, line["uid"]))

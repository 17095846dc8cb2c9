"""Large pools are judged in parts on the cluster; sets of samples that rules compare the pool with."""

from itertools import chain

import polars as pl
import pytest

import pipeline.select as fold
from pipeline.cluster import Cluster
from pipeline.ledger import read_ledger
from pipeline.resolve import resolve
from pipeline.run import run
from schemas.errors import CuveeError, RecipeError
from tests.pools import sample, write_tar

PLUGIN = """
from typing import Literal
from itertools import chain

import polars as pl
from schemas.errors import CuveeError
from stages.rule import Rule, Verdict, drop_lines
from stages.selector import Ranking, Selector

class KnownCaptions(Rule):
    kind: Literal["known_captions"] = "known_captions"
    against: str
    def columns(self): return ("caption",)
    def needs_references(self): return (self.against,)
    def judge(self, rows, context):
        known = context.references[self.against].select("caption", pl.col("uid").alias("duplicate_of"))
        twins = rows.join(known.unique("caption", keep="first", maintain_order=True), on="caption")
        twins = twins.with_columns(pl.lit(1.0).alias("similarity")).collect()
        return Verdict(drop_lines(twins, "known_caption").sort("uid"))

class Wordiest(Selector):
    kind: Literal["wordiest"] = "wordiest"
    refuse: bool = False
    def reads(self): return ("words",)
    def rank(self, rows, context):
        if self.refuse:
            context.each_part(rows, complain)
        words = pl.col("words").cast(pl.Float64).alias("score")
        found = context.each_part(rows, lambda part: part.select("uid", words))
        return Ranking(pl.concat(found), evidence={"rows": sum(context.each_part(rows, len))})

def complain(part):
    raise CuveeError("no such thing")
"""


@pytest.fixture
def recipe(make_pool):
    def make(select: str, **where):
        path = make_pool(shards=3, rows=8, extra=f"plugins: [own.py]\n{select}", **where)
        (path.parent / "own.py").write_text(PLUGIN)
        known = [sample(number) for number in (2, 9, 10_005, 30_000)]
        write_tar(path.parent / "known" / "00000.tar", known)
        path.write_text(path.read_text() + 'references: {seen: {shards: "known/*.tar"}}\n')
        return path

    return make


RULES = "select:\n  - {kind: known_captions, against: seen}\n  - {kind: wordiest, fraction: 0.5}\n"


def ledger(outcome) -> pl.DataFrame:
    return read_ledger(outcome.folder / "ledger").sort("role", "source", "shard", "row")


def test_parts_on_the_cluster_decide_as_the_whole_does(recipe, ray_cluster, monkeypatch):
    whole = run(resolve(recipe(RULES)), Cluster(), until="select")
    monkeypatch.setattr(fold, "ROWS_PER_PART", 10)
    parts = run(resolve(recipe(RULES, folder="other", shuffled=True)), Cluster(), until="select")
    assert whole.record["steps"][1]["evidence"] == parts.record["steps"][1]["evidence"]
    same = [name for name in ledger(whole).columns if name != "shard"]
    assert ledger(whole).select(same).equals(ledger(parts).select(same))


def test_a_part_travels_with_its_own_uids_alone(recipe, ray_cluster, monkeypatch):
    chosen = run(resolve(recipe(RULES)), Cluster(), until="select").chosen
    monkeypatch.setattr(fold, "ROWS_PER_PART", 10)
    rows, parts = fold.survivors(chosen, ["words"])
    uids = [part.collect()["uid"].to_list() for part in parts]
    assert len(parts) > 1 and sorted(chain(*uids)) == rows.collect()["uid"].to_list()
    for part, own in zip(parts, uids, strict=True):
        plan = part.serialize()
        assert {uid for uid in chosen.survivors["uid"] if uid.encode() in plan} <= set(own)


def test_references_are_accounted_for_and_name_what_matched(recipe, ray_cluster):
    lines = ledger(run(resolve(recipe(RULES)), Cluster(), until="select"))
    seen = lines.filter(pl.col("role") == "reference")
    assert seen.select("source", "status", "decided_by").unique().rows() == [("seen", "kept", "reference")]
    hits = lines.filter(pl.col("reason") == "known_caption")
    assert len(hits) == 3 and hits["similarity"].unique().to_list() == [1.0]
    assert set(hits["duplicate_of"]) < set(seen["uid"])
    ranked = lines.filter((pl.col("role") == "pool") & (pl.col("reason") != "known_caption").fill_null(True))
    assert ranked["score"].null_count() == 0 and hits["score"].null_count() == len(hits)


def test_a_name_that_is_no_reference_is_refused(recipe):
    with pytest.raises(RecipeError, match="did you mean 'seen'"):
        resolve(recipe("select:\n  - {kind: known_captions, against: sen}\n"))


def test_a_source_and_a_reference_need_different_names(recipe):
    path = recipe(RULES)
    path.write_text(path.read_text().replace("{seen:", "{alpha:"))
    with pytest.raises(RecipeError, match="'alpha' is a source of the pool and a reference"):
        resolve(path)


def test_what_a_part_refuses_arrives_in_its_own_words(recipe, ray_cluster, monkeypatch):
    monkeypatch.setattr(fold, "ROWS_PER_PART", 10)
    with pytest.raises(CuveeError, match="rule 'wordiest': no such thing"):
        run(resolve(recipe("select:\n  - {kind: wordiest, samples: 3, refuse: true}\n")), Cluster(), until="select")


BASELINES = """select:
  - {kind: random, fraction: 0.9}
  - {kind: longest_caption, fraction: 0.8}
  - {kind: odis, scores: [characters, grey_deviation], fraction: 0.8}
  - {kind: best, column: characters, samples: 20}
"""


def test_selectors_in_parts_decide_as_on_the_whole(recipe, ray_cluster, monkeypatch):
    whole = run(resolve(recipe(BASELINES)), Cluster(), until="select")
    monkeypatch.setattr(fold, "ROWS_PER_PART", 10)
    parts = run(resolve(recipe(BASELINES, folder="other", shuffled=True)), Cluster(), until="select")
    same = [name for name in ledger(whole).columns if name != "shard"]
    assert ledger(whole).select(same).equals(ledger(parts).select(same))
    assert [step["evidence"] for step in whole.record["steps"]] == [step["evidence"] for step in parts.record["steps"]]
    assert len(ledger(whole).filter(pl.col("role") == "pool", pl.col("status") == "kept")) == 20

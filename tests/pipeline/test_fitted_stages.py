"""Stages that learn from the pool: scored without an image, incremental as fresh, pinned as in the run of the pin."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from pipeline.cluster import Cluster
from pipeline.diff import diff
from pipeline.estimate import estimate, plan_text
from pipeline.explain import story
from pipeline.fits import FIT, read_fit
from pipeline.gc import collect
from pipeline.learn import waves
from pipeline.resolve import resolve
from pipeline.run import Outcome, finish, run
from schemas.errors import CuveeError, RecipeError
from tests.pools import sample, write_tar

PLUGIN = """
from typing import ClassVar, Literal
import numpy as np
import polars as pl
import pyarrow as pa
from schemas.columns import GREY_DEVIATION, IMAGE, column
from schemas.errors import CuveeError
from schemas.tables import POOL_ROLE, TARGET_ROLE
from stages.fit import Fit
from stages.fitted_stage import FittedStage
from stages.stage import Stage
from stages.vectors import reasons, scored, whole_rows

ABOVE = column("above_mean", pa.float64(), "grey deviation above the pool's mean")
OF_SOURCE = column("of_source", pa.float64(), "grey deviation above the source's least one")
TWICE = column("twice", pa.float64(), "twice above_mean")
SPREAD = column("spread", pa.float64(), "twice, in units of its largest")


def scorer(stage, read, value):
    def score(batch):
        whole = whole_rows([batch[read]])
        values = value(batch[read].to_numpy(zero_copy_only=False)[whole].astype(np.float64))
        return pa.record_batch([scored(values, whole, stage.writes[0].type), reasons(whole)], stage.returns())
    return score


class Above(FittedStage):
    kind: Literal["above"] = "above"
    factor: float = 1.0
    reads, writes, learns_from = (GREY_DEVIATION,), (ABOVE,), (POOL_ROLE,)

    def learn(self, examples):
        values = examples.rows["pool"]["grey_deviation"]
        return Fit(facts={"mean": sum(map(int, values)) / len(values), "uids": examples.rows["pool"]["uid"].to_list()})

    def open_with(self, fit, source):
        return scorer(self, "grey_deviation", lambda v: self.factor * (v - fit.facts["mean"]))


class OfSource(FittedStage):
    kind: Literal["of_source"] = "of_source"
    reads, writes, learns_from, per_source = (GREY_DEVIATION,), (OF_SOURCE,), (POOL_ROLE,), True

    def learn(self, examples):
        least = examples.rows["pool"].group_by("source").agg(pl.col("grey_deviation").min()).sort("source")
        return Fit(facts={"least": dict(least.iter_rows())})

    def open_with(self, fit, source):
        if source not in fit.facts["least"] and source != "target":
            raise CuveeError(f"source {source!r} is new; run once without `fits`")
        return scorer(self, "grey_deviation", lambda v: v - fit.facts["least"].get(source, 0.0))


class Twice(Stage):
    kind: Literal["twice"] = "twice"
    reads, writes = (ABOVE,), (TWICE,)

    def open(self):
        return scorer(self, "above_mean", lambda v: 2 * v)


class Spread(FittedStage):
    kind: Literal["spread"] = "spread"
    reads, writes, learns_from = (TWICE,), (SPREAD,), (TARGET_ROLE,)
    learn_rows = 5

    def learn(self, examples):
        rows = examples.rows["target"]
        return Fit(facts={"largest": float(rows["twice"].abs().max()), "uids": rows["uid"].to_list()})

    def open_with(self, fit, source):
        return scorer(self, "twice", lambda v: v / fit.facts["largest"])


class Looks(FittedStage):
    kind: Literal["looks"] = "looks"
    reads, writes, learns_from = (IMAGE,), (column("looks", pa.int8(), "nothing"),), ()
"""
STEPS = """  - {kind: above}
  - {kind: of_source}
  - {kind: twice}
  - {kind: spread}
plugins: [learning.py]
select: [{kind: at_least, column: spread, value: -1000}]
export: {kind: webdataset, samples: 10, columns: [spread, of_source]}
"""
LEARNING = {"above": 5, "of_source": 5, "twice": 5, "spread": 5}
Made = Callable[..., Path]


@pytest.fixture
def made(make_pool: Made, ray_cluster: object) -> Made:
    def make(folder: str = "one", **options: Any) -> Path:
        recipe = make_pool(folder=folder, extra=STEPS, **options)
        (recipe.parent / "learning.py").write_text(PLUGIN)
        return recipe

    return make


def ran(recipe: Path) -> Outcome:
    outcome = run(resolve(recipe), Cluster(), until="export")
    finish(outcome)
    return outcome


def grow(recipe: Path) -> None:
    write_tar(recipe.parent / "pool" / "alpha" / "00007.tar", [sample(number) for number in range(30_000, 30_012)])


def computed(outcome: Outcome) -> dict[str, int]:
    return {kind: count for kind, count in outcome.scored.computed.items() if count}


def learned(outcome: Outcome) -> dict[str, bool]:
    return {line["kind"]: line["fit"]["learned"] for line in outcome.record["stages"] if line["fit"]}


def facts(outcome: Outcome, kind: str) -> dict[str, Any]:
    line = next(line for line in outcome.record["stages"] if line["kind"] == kind)
    return read_fit(outcome.resolved.workspace.root / line["fit"]["folder"] / FIT).facts


def files(outcome: Outcome) -> dict[str, bytes]:
    """Sidecars and fits that the run rests on, and its export."""
    root = outcome.resolved.workspace.root
    folders = [root / "scores" / name for name in outcome.record["addresses"].values()]
    folders += [root / line["fit"]["folder"] for line in outcome.record["stages"] if line["fit"]]
    paths = [path for folder in folders for path in folder.iterdir()]
    paths += [path for path in outcome.resolved.export_folder.rglob("*") if path.is_file()]
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in paths}


def scores(outcome: Outcome, column: str, role: str = "pool") -> pl.DataFrame:
    names = ["grey_deviation", column]
    return outcome.chosen.table.scores(role, names).collect().sort("uid")


def test_they_are_scored_after_what_they_read_and_read_no_image(made: Made) -> None:
    recipe = made()
    assert waves(resolve(recipe).stages) == [
        ["image_header", "caption_text", "perceptual_hash"],
        ["above", "of_source", "twice"],
        ["spread"],
    ]
    first = ran(recipe)
    assert (
        computed(first) == {kind: 5 for kind in ("index", "image_header", "caption_text", "perceptual_hash")} | LEARNING
    )
    assert learned(first) == {"above": True, "of_source": True, "spread": True}
    assert [line["kind"] for line in first.record["stages"]][-4:] == list(LEARNING)
    pool, target = scores(first, "above_mean"), scores(first, "above_mean", "target")
    mean = facts(first, "above")["mean"]
    for rows in (pool, target):
        assert rows["above_mean"].to_list() == (rows["grey_deviation"].cast(pl.Float64) - mean).to_list()
    assert facts(first, "above")["uids"] == pool["uid"].to_list()
    assert first.manifest is not None
    assert first.manifest["fits"].keys() == {"of_source", "spread"}, "what the exported scores were learned with"
    assert first.manifest["fits"]["spread"]["largest"] == pytest.approx(facts(first, "spread")["largest"])
    assert len(facts(first, "spread")["uids"]) == 5 and set(facts(first, "spread")["uids"]) < set(target["uid"])


def test_an_unchanged_pool_learns_nothing_and_starts_no_ray(made: Made) -> None:
    recipe = made()
    first = ran(recipe)
    assert "nothing is missing" in plan_text(estimate(resolve(recipe)))
    second = ran(recipe)
    assert computed(second) == {} and not second.record["ray_started"]
    assert learned(second) == {"above": False, "of_source": False, "spread": False}
    assert second.record["recipe_fingerprint"] == first.record["recipe_fingerprint"]
    assert files(second) == files(first)


def test_workers_and_listing_order_change_no_byte(make_pool: Made) -> None:
    import ray

    found = []
    for folder, workers in (("a", 1), ("b", 2)):
        recipe = make_pool(folder=folder, extra=STEPS, shuffled=folder == "b")
        (recipe.parent / "learning.py").write_text(PLUGIN)
        ray.shutdown()
        with Cluster("local", workers) as cluster:
            found.append(files(run(resolve(recipe), cluster, until="export")))
    ray.shutdown()
    assert found[0] == found[1]


def test_a_grown_pool_is_learned_anew_and_equals_a_fresh_run(made: Made) -> None:
    recipe, fresh = made("one"), made("two")
    first = ran(recipe)
    grow(recipe)
    text = plan_text(estimate(resolve(recipe)))
    assert (
        "above: to be fitted to the pool (5 shards), then computed" in text and "twice: waits for what another" in text
    )
    second = ran(recipe)
    assert computed(second)["above"] == 6 and computed(second)["image_header"] == 1
    assert learned(second) == {"above": True, "of_source": True, "spread": True}
    assert (
        "score above: it has learned something else of other shards, or was pinned"
        in diff(first.folder, second.folder)["stages"]
    )
    grow(fresh)
    assert files(ran(fresh)) == files(second)


def test_a_fit_that_comes_out_equal_computes_only_what_is_new(made: Made) -> None:
    """A shard more in the target changes no fit of the pool."""
    recipe = made()
    first = ran(recipe)
    write_tar(recipe.parent / "target" / "00001.tar", [sample(number) for number in range(50_000, 50_003)])
    second = ran(recipe)
    assert (computed(second)["above"], computed(second)["of_source"], computed(second)["twice"]) == (1, 1, 1)
    assert learned(second) == {"above": False, "of_source": False, "spread": True}
    assert facts(second, "above") == facts(first, "above")


def test_pinned_fits_score_a_grown_pool_as_the_pinned_run_would(made: Made) -> None:
    recipe, fresh = made("one"), made("two")
    first = ran(recipe)
    for home in (recipe, fresh):
        grow(home)
        place = first.name if home == recipe else "/".join(("..", "one", "work", "runs", first.name))
        home.write_text(home.read_text() + f"fits: {place}\n")
    assert "above: 1 shards not seen before" in plan_text(estimate(resolve(recipe)))
    second = ran(recipe)
    assert [computed(second)[kind] for kind in LEARNING] == [1, 1, 1, 1]
    assert learned(second) == {"above": False, "of_source": False, "spread": False}
    assert all(line["fit"]["pinned"] for line in second.record["stages"] if line["fit"])
    assert not [note for note in second.record["notes"] if note.startswith("fits")]
    assert second.record["addresses"] == first.record["addresses"]
    assert second.record["recipe_fingerprint"] != first.record["recipe_fingerprint"]
    elsewhere = ran(fresh)
    assert {name: data for name, data in files(elsewhere).items() if "/fits/" not in name} == files(second)
    again = ran(fresh)
    assert computed(again) == {} and not again.record["ray_started"]

    text = recipe.read_text().replace("{kind: above}", "{kind: above, factor: 3.0}")
    recipe.write_text(text)
    third = ran(recipe)
    assert learned(third) == {"above": True, "of_source": False, "spread": True}
    notes = [note for note in third.record["notes"] if note.startswith("fits")]
    assert [note.split()[1] for note in notes] == ["above", "spread"]
    shutil.copytree(recipe.parent / "pool" / "beta", recipe.parent / "pool" / "gamma")
    recipe.write_text(text.replace("beta", "gamma"))
    with pytest.raises(CuveeError, match="source 'gamma' is new"):
        ran(recipe)


def test_one_shard_in_two_sources_is_scored_for_each(made: Made) -> None:
    recipe = made()
    shutil.copy(recipe.parent / "pool" / "beta" / "00001.tar", recipe.parent / "pool" / "alpha" / "00009.tar")
    outcome = ran(recipe)
    rows, least = scores(outcome, "of_source"), facts(outcome, "of_source")["least"]
    assert len(rows) == 60 and rows["of_source"].null_count() == 0 and least["alpha"] != least["beta"]
    for source, part in rows.partition_by("source", as_dict=True).items():
        assert part["of_source"].to_list() == (part["grey_deviation"].cast(pl.Float64) - least[source[0]]).to_list()
    assert computed(outcome)["of_source"] == 6
    twins = outcome.chosen.table.samples.filter(pl.col("source") == "alpha").join(
        outcome.chosen.table.samples.filter(pl.col("source") == "beta"), on="image_hash"
    )
    assert len(twins) == 12
    for column in ("uid", "uid_right"):
        told = story(outcome.folder, twins[column][0])["scores"]
        row = rows.filter(pl.col("uid") == twins[column][0]).row(0, named=True)
        assert told["of_source"] == pytest.approx(row["of_source"])
    assert outcome.manifest is not None and outcome.manifest["samples"] == 10


def test_rows_without_an_input_or_held_out_teach_nothing(made: Made) -> None:
    recipe = made()
    broken = {"__key__": b"broken", "jpg": b"no image", "txt": b"a broken picture of nothing at all"}
    write_tar(recipe.parent / "pool" / "alpha" / "00003.tar", [sample(777), broken, sample(778, "")])
    outcome = ran(recipe)
    rows = outcome.chosen.table.samples.filter(pl.col("shard").str.ends_with("alpha/00003.tar"))
    keys = dict(rows.select("key", "uid").iter_rows())
    uids = facts(outcome, "above")["uids"]
    assert [key for key, uid in keys.items() if uid in uids] == ["s000777"], (
        "the other caption is empty: ingest's verdict"
    )
    reasons = outcome.chosen.table.scores("pool", ["above_mean", "above_reason"]).collect()
    assert reasons.filter(pl.col("above_mean").is_null())["above_reason"].to_list() == ["missing_input"]


def test_what_cannot_learn_is_refused(made: Made) -> None:
    recipe = made()
    text = recipe.read_text()
    recipe.write_text(
        text.replace("{kind: above}", "{kind: looks}").replace("  - {kind: twice}\n  - {kind: spread}\n", "")
    )
    with pytest.raises(RecipeError, match="'looks' learns from many rows and reads `image`"):
        resolve(recipe)
    recipe.write_text(text.replace('target: {shards: "target/*.tar"}\n', ""))
    with pytest.raises(RecipeError, match="'spread' needs a target and the recipe names none"):
        resolve(recipe)
    write_tar(recipe.parent / "empty" / "0.tar", [{"__key__": b"a", "txt": b"no image here at all"}])
    recipe.write_text(text.replace("pool/alpha/*.tar", "empty/0.tar").replace("pool/beta/*.tar", "empty/0.tar"))
    with pytest.raises(CuveeError, match="stage 'above': nothing to learn from: no sample of the pool"):
        ran(recipe)


def test_nothing_is_learned_of_what_is_held_out(made: Made) -> None:
    recipe = made()
    recipe.write_text(recipe.read_text() + "train: {connector: mlp, vision: image_header, language_model: ./none}\n")
    shutil.copy(recipe.parent / "target" / "00000.tar", recipe.parent / "pool" / "beta" / "00005.tar")
    outcome = ran(recipe)
    held = set(outcome.chosen.held["uid"])
    samples = outcome.chosen.table.samples
    images = samples.filter(pl.col("uid").is_in(list(held)))["image_hash"].to_list()
    copies = samples.filter((pl.col("role") == "pool") & pl.col("image_hash").is_in(images))["uid"].to_list()
    assert held and len(copies) == len(held)
    assert not held & set(facts(outcome, "spread")["uids"])
    taught = set(facts(outcome, "above")["uids"])
    assert not taught & set(copies) and len(taught) == 60 - len(copies)


def test_gc_keeps_fits_and_their_scores_as_long_as_a_run_or_recipe_needs_them(made: Made) -> None:
    recipe = made()
    first = ran(recipe)
    root = recipe.parent / "work"
    assert collect(root, [], None, remove=False)["garbage"] == []
    grow(recipe)
    second = ran(recipe)
    listed = {entry["path"] for entry in collect(root, [recipe], 1, remove=True)["garbage"]}
    old = {line["fit"]["folder"] for line in first.record["stages"] if line["fit"]}
    new = {line["fit"]["folder"] for line in second.record["stages"] if line["fit"]}
    assert old - new <= listed and not new & listed
    assert computed(ran(recipe)) == {}


EMBEDDED = """  - {{kind: image_detectors}}
  - {{kind: caption_rules}}
  - {{kind: caption_safety}}
  - {{kind: clip, model: "local-dir:{model}", device: cpu}}
  - {{kind: tmars}}
  - {{kind: concepts, concepts: [circle, square]}}
  - {{kind: negcliploss}}
  - {{kind: normsim}}
  - {{kind: calibrated_clip_score}}
  - {{kind: alignment_level, levels: 4}}
  - {{kind: visualness}}
select:
  - {{kind: embedding_geometry}}
  - {{kind: top_fraction, column: negcliploss, fraction: 0.5}}
export: {{kind: webdataset, samples: 10, columns: [alignment_level, calibrated_clip_score]}}
"""


def test_the_scores_of_the_project_run_from_sidecars_and_stand_in_the_report(
    make_pool: Made, ray_cluster: object
) -> None:
    from pipeline.present import present

    model = Path(__file__).parents[2] / "pipeline/demo/models/encoder"
    recipe = make_pool(extra=EMBEDDED.format(model=model))
    outcome = ran(recipe)
    assert outcome.record["samples"]["in"] == 48 and outcome.record["samples"].get("quarantined", 0) == 0
    evidence = outcome.record["steps"][0]["evidence"]
    assert evidence["samples"] == {"alpha": 24, "beta": 24} and outcome.record["steps"][0]["dropped"] == {}
    assert 0 < evidence["modality_gap"]["alpha"] < 2 and evidence["image_uniformity"]["beta"] < 0
    columns = ["negcliploss", "normsim_2", "normsim_inf", "calibrated_clip_score", "alignment_level", "visualness"]
    for role in ("pool", "target"):
        assert not any(outcome.chosen.table.scores(role, columns).select(columns).null_count().collect().row(0))
    levels = outcome.chosen.table.scores("pool", ["alignment_level"]).collect()["alignment_level"]
    assert sorted(levels.value_counts()["count"].to_list()) == [12, 12, 12, 12]
    present(outcome)
    page = (outcome.folder / "report.html").read_text()
    assert "modality_gap" in page and columns[0] in page.split('<section id="scores"')[0]  # cards tell it
    section = page.split('<section id="scores"')[1].split("</section>")[0]
    shown = set(re.findall(r"<h3><code>(\w+)</code>", section))
    written = {field.name for stage in outcome.resolved.stages for field in stage.writes}
    unseen = {"image_embedding", "text_embedding", "phash", "caption_normal"}  # vectors, bits, and the pool's own words
    assert shown == written - unseen
    assert outcome.manifest is not None and len(outcome.manifest["fits"]["alignment_level"]["cuts"]) == 3
    again = ran(recipe)
    assert computed(again) == {} and not again.record["ray_started"] and set(learned(again).values()) == {False}
    recipe.write_text(recipe.read_text().replace("levels: 4", "levels: 3"))
    text = plan_text(estimate(resolve(recipe)))
    assert "alignment_level: to be fitted to the pool (4 shards)" in text and "reads 0.0 MB of shards" in text
    third = ran(recipe)
    assert computed(third) == {"alignment_level": 5} and third.record["image_bytes_read"] == 0

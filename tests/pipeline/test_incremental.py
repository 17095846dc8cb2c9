"""A pool that lives: new, removed, rewritten, renamed, moved shards, changed settings; only the changed is computed."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from pipeline.changes import setting_changes
from pipeline.cluster import Cluster
from pipeline.diff import MOST_LINES, diff, diff_text
from pipeline.estimate import estimate, plan_text
from pipeline.explain import story
from pipeline.gc import collect, garbage_text
from pipeline.resolve import resolve
from pipeline.run import Outcome, finish, run
from pipeline.sidecars import read_json, read_table, write_json, write_table
from schemas.errors import CuveeError, RecipeError
from tests.pools import sample, write_tar

RULES = """select:
  - {kind: at_least, column: words, value: 3}
  - {kind: dsir, target: target, samples: 20}
"""


@pytest.fixture
def living(make_pool: Callable[..., Path], ray_cluster: object) -> tuple[Path, Outcome]:
    """A recipe over 2 x 2 shards of 12 and a target, and its first run."""
    recipe = make_pool(extra=RULES)
    return recipe, ran(recipe)


def ran(recipe: Path, *, verify: bool = False) -> Outcome:
    resolved = resolve(recipe)
    outcome = run(resolved, Cluster(), until="mix", verify=verify)
    finish(outcome)
    return outcome


def computed(outcome: Outcome) -> dict[str, int]:
    return {kind: count for kind, count in outcome.scored.computed.items() if count}


def shard(recipe: Path, name: str) -> Path:
    return recipe.parent / "pool" / "alpha" / name


def plan(recipe: Path, **options: bool) -> str:
    return plan_text(estimate(resolve(recipe), **options))


EVERY_STAGE = {"index": 1, "image_header": 1, "caption_text": 1, "perceptual_hash": 1}


def test_an_unchanged_pool_costs_nothing(living: tuple[Path, Outcome]) -> None:
    recipe, first = living
    assert computed(first) == {kind: 5 for kind in EVERY_STAGE}
    assert "shards unchanged" in plan(recipe) and "nothing is missing" in plan(recipe)
    second = ran(recipe)
    assert computed(second) == {} and not second.record["ray_started"]
    told = diff(first.folder, second.folder)
    assert (told["shards"], told["settings"], told["versions"], told["fates"]) == ({}, [], [], [])
    assert "same shards, same settings, same versions" in diff_text(told)


def test_what_was_written_before_a_library_was_noted_is_as_good(living: tuple[Path, Outcome]) -> None:
    recipe, first = living
    record = read_json(first.folder / "run.json")
    version = record["libraries"].pop("torchvision")
    write_json(record, first.folder / "run.json")
    facts = {name: record[name] for name in ("libraries", "processor", "python")}
    for path in resolve(recipe).workspace.root.glob("scores/*/*.parquet"):
        write_table(read_table(path), path, facts)
    second = ran(recipe)
    assert computed(second) == {} and second.record["addresses"] == record["addresses"]
    assert diff(first.folder, second.folder)["versions"] == [f"torchvision was not noted, is {version}"]


def test_a_new_shard_is_all_that_is_computed(living: tuple[Path, Outcome]) -> None:
    recipe, first = living
    write_tar(shard(recipe, "00002.tar"), [sample(number) for number in range(500, 505)])
    text = plan(recipe)
    assert "shards 1 new" in text and "index: 1 shards not seen before" in text
    second = ran(recipe)
    assert computed(second) == EVERY_STAGE
    told = diff(first.folder, second.folder)
    assert list(told["shards"]) == ["new"] and told["shards"]["new"][0].endswith("00002.tar")
    assert sum(fate["samples"] for fate in told["fates"] if fate["was"] == "not in the pool") == 5


def test_a_removed_shard_costs_nothing(living: tuple[Path, Outcome]) -> None:
    recipe, first = living
    shard(recipe, "00001.tar").unlink()
    assert "shards 1 removed" in plan(recipe)
    second = ran(recipe)
    assert computed(second) == {} and second.record["samples"]["in"] == 36
    assert list(diff(first.folder, second.folder)["shards"]) == ["removed"]


def test_a_shard_rewritten_behind_its_path_is_scored_again(living: tuple[Path, Outcome]) -> None:
    recipe, first = living
    write_tar(shard(recipe, "00001.tar"), [sample(number) for number in range(700, 703)])
    assert "shards 1 changed" in plan(recipe)
    second = ran(recipe)
    assert computed(second) == EVERY_STAGE and second.record["samples"]["in"] == 39
    assert list(diff(first.folder, second.folder)["shards"]) == ["changed"]


def test_an_older_run_is_explained_by_the_shards_it_had(living: tuple[Path, Outcome]) -> None:
    recipe, first = living
    line = first.ledger.filter(pl.col("shard") == str(shard(recipe, "00001.tar"))).sort("row").row(0, named=True)
    write_tar(shard(recipe, "00001.tar"), [sample(number) for number in range(700, 730)])
    ran(recipe)
    assert story(first.folder, line["uid"])["scores"]["caption"] == "a picture of thing number 12 on a table"


def test_diff_tells_that_a_duplicate_left_for_another_sample(
    make_pool: Callable[..., Path], ray_cluster: object
) -> None:
    recipe = make_pool(extra="select: [{kind: minhash_captions, threshold: 0.7}, {kind: exact_duplicates}]\n")
    first = ran(recipe)
    text = recipe.read_text()
    recipe.write_text(text.replace("threshold: 0.7", "threshold: 0.7, prefer: grey_deviation"))
    told = diff(first.folder, ran(recipe).folder)
    same = "near_duplicate_caption (minhash_captions)"
    assert {fate["is"] for fate in told["fates"] if fate["was"] == same} >= {f"{same} of another sample"}
    many = [told["fates"][0] | {"samples": number} for number in range(MOST_LINES + 3)]
    assert diff_text(told | {"fates": many}).count("e.g.") == MOST_LINES
    assert "and 3 more; --json lists all" in diff_text(told | {"fates": many})


def test_diff_names_rules_of_one_kind_as_the_ledger_does() -> None:
    before = {"select": [{"kind": "semdedup", "keep": 0.9}, {"kind": "at_least", "column": "words", "value": 2}]}
    after = {"select": [{"kind": "semdedup", "keep": 0.8}, {"kind": "at_least", "column": "words", "value": 2}]}
    after["select"] += [{"kind": "semdedup", "epsilon": 0.1}, {"kind": "at_least", "column": "characters", "value": 2}]
    assert setting_changes(before, after) == [
        "select semdedup_2 is new",
        "select at_least_2 of characters is new",
        "select semdedup: keep was 0.9, is 0.8",
    ]


def rewrite_in_disguise(path: Path) -> None:
    """Other bytes of the same size and modification time: a caption with one letter exchanged."""
    before, content = os.stat(path), path.read_bytes()
    assert content.count(b"a picture of thing") > 3
    path.write_bytes(content.replace(b"a picture of thing", b"a picture of think", 1))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_verify_finds_what_size_and_time_hide(living: tuple[Path, Outcome]) -> None:
    recipe, first = living
    rewrite_in_disguise(shard(recipe, "00001.tar"))
    assert computed(ran(recipe)) == {}
    assert "changed behind an equal size and time" in plan(recipe, verify=True)
    second = ran(recipe, verify=True)
    assert computed(second) == EVERY_STAGE
    assert any("00001.tar had changed behind an equal size and time" in note for note in second.record["notes"])
    assert list(diff(first.folder, second.folder)["shards"]) == ["changed"]
    assert computed(ran(recipe, verify=True)) == {}


def test_renamed_moved_and_touched_shards_cost_nothing(living: tuple[Path, Outcome]) -> None:
    recipe, first = living
    shard(recipe, "00001.tar").rename(shard(recipe, "renamed.tar"))
    shutil.move(recipe.parent / "pool" / "beta", recipe.parent / "elsewhere")
    recipe.write_text(recipe.read_text().replace("pool/beta", "elsewhere"))
    os.utime(shard(recipe, "00000.tar"), (1, 1))
    text = plan(recipe)
    assert "3 moved" in text and "1 touched" in text and "source beta: shards was" in text
    second = ran(recipe)
    assert computed(second) == {} and not second.record["ray_started"]
    told = diff(first.folder, second.folder)
    assert {kind: len(paths) for kind, paths in told["shards"].items()} == {"moved": 3, "touched": 1}
    assert told["fates"] == []


def test_a_changed_stage_computes_that_stage_and_a_changed_rule_none(living: tuple[Path, Outcome]) -> None:
    recipe, first = living
    text = recipe.read_text()
    recipe.write_text(text.replace("samples: 20", "samples: 25"))
    assert "select dsir: samples was 20, is 25" in plan(recipe)
    second = ran(recipe)
    assert computed(second) == {}
    assert [line["reused"] for line in second.record["steps"]] == [True, False]
    told = diff(first.folder, second.folder)
    assert told["settings"] == ["select dsir: samples was 20, is 25"]
    assert {(fate["was"], fate["is"]) for fate in told["fates"]} >= {("not_sampled_by_dsir (dsir)", "kept")}

    recipe.write_text(text.replace("  - {kind: perceptual_hash}\n", "  - {kind: perceptual_hash}\n  - {kind: extra}\n"))
    plugin = (
        "import pyarrow as pa\nfrom typing import Literal\nfrom schemas.columns import KEY, column\n"
        "from stages.stage import Stage\nEXTRA = column('extra', pa.int8(), 'a constant')\n"
        "class Extra(Stage):\n    kind: Literal['extra'] = 'extra'\n    reads, writes = (KEY,), (EXTRA,)\n"
        "    def open(self):\n        return lambda batch: pa.record_batch([pa.array([1] * batch.num_rows, pa.int8()), "
        "pa.nulls(batch.num_rows, pa.string())], self.returns())\n"
    )
    (recipe.parent / "extra.py").write_text(plugin)
    recipe.write_text(recipe.read_text() + "plugins: [extra.py]\n")
    assert "extra: 5 known shards: new step" in plan(recipe)
    assert computed(ran(recipe)) == {"extra": 5}
    (recipe.parent / "extra.py").write_text(plugin.replace("[1]", "[2]"))
    assert "extra: 5 known shards: settings, version or inputs changed" in plan(recipe)
    before = sorted((recipe.parent / "work" / "runs").glob("*/"))[-1]
    third = ran(recipe)
    assert computed(third) == {"extra": 5}
    assert diff(before, third.folder)["stages"] == ["score extra: its settings, version, model or inputs changed"]


def test_gc_lists_then_removes_what_no_run_needs(living: tuple[Path, Outcome]) -> None:
    recipe, _ = living
    root = recipe.parent / "work"
    assert collect(root, [], None, remove=False)["garbage"] == []
    shard(recipe, "00001.tar").unlink()
    recipe.write_text(recipe.read_text().replace("samples: 20", "samples: 10"))
    second = ran(recipe)
    listed = collect(root, [], 1, remove=False)
    sidecars = [entry for entry in listed["garbage"] if entry["path"].startswith("scores/")]
    assert len(sidecars) == 4, "index and three stages of the shard that is gone"
    assert "run it with --yes" in garbage_text(listed) and all((root / e["path"]).exists() for e in listed["garbage"])
    removed = collect(root, [recipe], 1, remove=True)
    assert removed["garbage"] == listed["garbage"] and removed["bytes"] > 0
    assert not any((root / entry["path"]).exists() for entry in removed["garbage"])
    assert [folder.name for folder in (root / "runs").glob("*/")] == [second.name]
    assert collect(root, [], None, remove=False)["garbage"] == []
    assert computed(ran(recipe)) == {}


def test_gc_keeps_the_run_that_a_kept_run_is_pinned_to(living: tuple[Path, Outcome]) -> None:
    recipe, first = living
    recipe.write_text(recipe.read_text() + f"fits: {first.name}\n")
    ran(recipe)
    root = recipe.parent / "work"
    kept = collect(root, [recipe], 1, remove=True)
    assert kept["runs_kept"] == 2 and first.folder.is_dir()
    assert resolve(recipe).pins is not None and computed(ran(recipe)) == {}


def test_gc_and_diff_refuse_what_is_none_of_theirs(living: tuple[Path, Outcome], tmp_path: Path) -> None:
    recipe, first = living
    with pytest.raises(CuveeError, match=r"no pool\.parquet"):
        collect(tmp_path, [], None, remove=False)
    with pytest.raises(CuveeError, match="holds no finished run"):
        diff(first.folder, tmp_path)
    other = recipe.with_name("other.yaml")
    other.write_text(recipe.read_text().replace("./work", "./elsewhere-work"))
    with pytest.raises(RecipeError, match="leave it out"):
        collect(recipe.parent / "work", [other], None, remove=False)

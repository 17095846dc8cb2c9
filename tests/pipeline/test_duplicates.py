"""Duplicates through whole runs: merged captions in every format, an evaluation set, shards that come later."""

import hashlib
import io
import json
import re
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import pipeline.select as fold
from pipeline.cluster import Cluster
from pipeline.explain import story, story_text
from pipeline.ledger import read_ledger
from pipeline.present import view
from pipeline.report.page import render
from pipeline.resolve import resolve
from pipeline.run import Outcome, finish, run
from schemas.errors import RecipeError
from tests.pools import picture, sample, write_tar

MERGE = """select:
  - {kind: bimodal_duplicates, images: exact, merge_captions: true, prefer: words}
  - {kind: bimodal_duplicates, images: near, merge_captions: true}
export: {kind: KIND, samples_per_shard: 20, columns: [captions, words]}
"""

LEFT_LATER = """select:
  - {kind: exact_duplicates, prefer: words}
  - {kind: at_most, column: words, value: 10}
export: {kind: KIND, samples_per_shard: 20}
"""

ONE_KIND = """select:
  - {kind: exact_duplicates, of: sample}
  - {kind: exact_duplicates, prefer: words}
  - {kind: at_least, column: words, value: 2}
  - {kind: at_least, column: words, value: 3}
"""

CHAIN = """select:
  - {kind: exact_duplicates, prefer: words}
  - {kind: minhash_captions, threshold: 0.7, prefer: words}
  - {kind: at_least, column: words, value: 2}
  - {kind: best, column: words, samples: 1}
"""

NEVER = "veto: {column: second_image_embedding, above: 0.9999}, "


def again(number: int, caption: str, key: str, quality: int | None = None) -> dict[str, bytes]:
    """The picture of another sample, byte for byte or re-encoded, with a caption and key of its own."""
    from PIL import Image

    image = picture(number)
    if quality is not None:
        buffer = io.BytesIO()
        Image.open(io.BytesIO(image)).save(buffer, "JPEG", quality=quality)
        image = buffer.getvalue()
    return {**sample(number, caption), "__key__": key.encode(), "jpg": image}


@pytest.fixture
def merged(make_pool: Callable[..., Path], ray_cluster: object) -> Callable[..., Outcome]:
    """A run over pictures that occur several times, under each format."""

    def make(kind: str = "webdataset", rules: str = MERGE, **where: Any) -> Outcome:
        recipe = make_pool(extra=rules.replace("KIND", kind), **where)
        twins = [
            again(0, "short", "a"),
            again(0, "a caption of quite some more words than the others of this picture have", "b"),
            again(0, "short", "c"),
            again(0, "as it was sent once more", "d", quality=70),
            again(1, "a picture of thing number 1 on a table", "e"),
        ]
        write_tar(recipe.parent / "pool" / "alpha" / "twins.tar", twins)
        return run(resolve(recipe), Cluster(), until="export")

    return make


def tar_captions(folder: Path) -> dict[str, Any]:
    found = {}
    for path in sorted(folder.glob("*.tar")):
        with tarfile.open(path) as archive:
            for member in archive:
                if member.name.endswith(".cuvee.json"):
                    found[member.name.split(".")[0]] = json.load(archive.extractfile(member))  # type: ignore[arg-type]
    return found


def test_one_picture_with_many_captions_becomes_one_sample(merged: Callable[..., Outcome]) -> None:
    outcome = merged()
    lines = outcome.ledger.filter(pl.col("reason") == "merged_caption")
    assert len(lines) == 5 and outcome.record["samples"]["dropped"] == 5
    keys = dict(outcome.ledger.select("uid", "key").iter_rows())
    survivor = next(uid for uid, key in keys.items() if key == "b")
    exported = tar_captions(outcome.resolved.export_folder)
    by_uid = {keys[uid]: captions["captions"] for uid, captions in exported.items()}
    own, *others = by_uid["b"]
    assert own.startswith("a caption of quite some more") and exported[survivor]["words"] == 14
    assert set(others) == {"short", "a picture of thing number 0 on a table", "as it was sent once more"}
    texts = {
        "a": "short",
        "c": "short",
        "d": "as it was sent once more",
        "s000000": "a picture of thing number 0 on a table",
    }
    in_order = [texts[keys[uid]] for uid in sorted(keys) if keys[uid] in texts]
    assert others == list(dict.fromkeys(in_order))
    assert by_uid["s000001"] == ["a picture of thing number 1 on a table"]
    assert len(exported) == 48 and "e" not in by_uid


def test_a_sample_merged_twice_brings_what_it_had_got(merged: Callable[..., Outcome]) -> None:
    outcome = merged()
    keys = dict(outcome.ledger.select("uid", "key").iter_rows())
    steps = {step.name: step.verdict.dropped for step in outcome.chosen.decisions}
    first, second = (steps[name] for name in ("bimodal_duplicates", "bimodal_duplicates_2"))
    assert {keys[uid] for uid in first["duplicate_of"]} == {"b", "s000001"}
    assert {keys[uid] for uid in [*second["uid"], *second["duplicate_of"]]} == {"b", "d"}
    kept = second["duplicate_of"][0]
    captions = tar_captions(outcome.resolved.export_folder)[kept]["captions"]
    assert len(captions) == 4


def test_it_is_told_where_the_one_that_stayed_left_later(merged: Callable[..., Outcome]) -> None:
    outcome = merged(rules=LEFT_LATER)
    finish(outcome)
    uids = {key: uid for uid, key in outcome.ledger.select("uid", "key").iter_rows()}
    favoured = story(outcome.folder, uids["b"])["favoured_over"]
    assert {line["uid"] for line in favoured} == {uids[key] for key in ("a", "c", "s000000")}
    told = story(outcome.folder, uids["a"])
    assert (told["duplicate_of"]["uid"], told["duplicate_of"]["status"]) == (uids["b"], "dropped")
    assert "which was dropped by at_most: above_words" in story_text(told)
    marks = {group.survivor.key: group.mark for group in view(outcome).duplicates}
    assert marks == {"b": "left, too, by at_most: above_words", "s000001": "stays"}


def of_one_kind(make_pool: Callable[..., Path]) -> tuple[Outcome, dict[str, str]]:
    """A run of several steps of one kind that give one reason, and the uids by key."""
    recipe = make_pool(extra=ONE_KIND)
    table = "a picture of thing number 0 on a table"
    twins = [again(0, table, "same"), again(0, table[:9], "image"), sample(50, "word"), sample(51, "two words")]
    write_tar(recipe.parent / "pool" / "alpha" / "twins.tar", twins)
    outcome = run(resolve(recipe), Cluster(), until="select")
    finish(outcome)
    return outcome, {key: uid for uid, key in outcome.ledger.select("uid", "key").iter_rows()}


def test_steps_of_one_kind_are_told_apart(make_pool: Callable[..., Path], ray_cluster: object) -> None:
    outcome, uids = of_one_kind(make_pool)
    ledger = read_ledger(outcome.folder / "ledger")
    dropped = ledger.filter(pl.col("status") == "dropped")
    by = {uid: (step, reason) for uid, step, reason in dropped.select("uid", "decided_by", "reason").iter_rows()}
    left = next(key for key in ("same", "s000000") if uids[key] in by)
    assert {key: by.get(uids[key]) for key in (left, "image", "s000050", "s000051")} == {
        left: ("exact_duplicates", "exact_duplicate"),
        "image": ("exact_duplicates_2", "exact_duplicate"),
        "s000050": ("at_least", "below_words"),
        "s000051": ("at_least_2", "below_words"),
    }
    record = outcome.record["steps"]
    assert [step["decided_by"] for step in record] == [
        "exact_duplicates", "exact_duplicates_2", "at_least", "at_least_2"
    ]  # fmt: skip
    assert record[1]["name"] == "2. exact_duplicates_2" and record[1]["kind"] == "exact_duplicates"
    for key, (step, _) in {key: by[uid] for key, uid in uids.items() if uid in by}.items():
        told = story(outcome.folder, uids[key])
        marks = [line["name"].split(". ")[1] for line in told["steps"] if line["decided"]]
        assert marks == [step] and f"dropped by {step}:" in story_text(told)
    kept = ledger.filter(pl.col("uid") == dropped.filter(pl.col("uid") == uids["image"])["duplicate_of"].item())
    favoured = {line["uid"]: line["decided_by"] for line in story(outcome.folder, kept["uid"].item())["favoured_over"]}
    assert favoured == {uids[left]: "exact_duplicates", uids["image"]: "exact_duplicates_2"}


def test_the_report_tells_steps_of_one_kind_apart(make_pool: Callable[..., Path], ray_cluster: object) -> None:
    outcome, uids = of_one_kind(make_pool)
    shown = view(outcome)
    groups = {group.decided_by: [card.uid for card in group.others] for group in shown.duplicates}
    assert groups["exact_duplicates_2"] == [uids["image"]] and len(groups["exact_duplicates"]) == 1
    sheets = {group.explanation: [card.uid for card in group.cards] for group in shown.gallery}
    assert sheets["decided by at_least"] == [uids["s000050"]]
    assert sheets["decided by at_least_2"] == [uids["s000051"]]
    page = render(shown)
    for step in ("2. exact_duplicates_2", "4. at_least_2"):
        assert f"<b>{step}</b>" in page
    for step in ("at_least", "at_least_2"):
        assert f"<code>below_words</code> <small>{step}</small>" in page
    assert "<h3><code>exact_duplicates_2</code> <span>2 copies</span>" in page


def test_explain_tells_what_a_duplicate_would_need(make_pool: Callable[..., Path], ray_cluster: object) -> None:
    """Who went before it, by which score, how alike, by which settings, and where that one went in turn."""
    recipe = make_pool(extra=CHAIN)
    twins = [again(0, "a b c d", "four"), sample(60, "a picture of thing number 0 on a table too")]
    twins += [sample(61, "word"), sample(62, "quite another thing")]
    write_tar(recipe.parent / "pool" / "alpha" / "twins.tar", twins)
    outcome = run(resolve(recipe), Cluster(), until="select")
    finish(outcome)
    uids = {key: uid for uid, key in outcome.ledger.select("uid", "key").iter_rows()}
    told = story(outcome.folder, uids["four"])
    assert [partner["key"] for partner in told["partners"]] == ["s000000", "s000060"]
    assert told["preferred"] == {"column": "words", "here": 4, "there": 9}
    text = story_text(told)
    assert '    1. exact_duplicates: of: "image", prefer: "words"\n' in text
    assert f"  duplicate of {uids['s000000']} (alpha, key s000000), similarity 1.000 (1: equal content)\n" in text
    assert "    words is 4, there 9: the higher stays, of equals the smaller uid\n" in text
    assert "    which was dropped by minhash_captions: near_duplicate_caption\n" in text
    assert f"    duplicate of {uids['s000060']} (alpha, key s000060), similarity 0.9" in text
    assert "      which was kept\n" in text
    assert "    words is 1; what has it from 2.0 up stays\n" in story_text(story(outcome.folder, uids["s000061"]))
    left = story_text(story(outcome.folder, uids["s000062"]))
    assert re.search(r"    ranked by 3, the highest first; 1 of \d+ stay, the last with 10\n", left)
    kept = story(outcome.folder, uids["s000060"])
    assert [line["similarity"] for line in kept["favoured_over"]] == sorted(
        (line["similarity"] for line in kept["favoured_over"]), reverse=True
    )
    assert "  kept, weight 1, score 10 by the last selector, drawn 1 times\n" in story_text(kept)
    first = kept["favoured_over"][0]
    line = f"  {first['uid']} left for this one, by minhash_captions: near_duplicate_caption, similarity 0."
    assert line in story_text(kept)


def content(folder: Path) -> str:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return hashlib.sha256(b"".join(path.name.encode() + path.read_bytes() for path in files)).hexdigest()


@pytest.mark.parametrize("kind", ["webdataset", "parquet", "mds", "huggingface"])
def test_lists_of_captions_are_the_same_bytes_in_parts_and_any_order(
    merged: Callable[..., Outcome], kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = merged(kind, folder="one").resolved.export_folder
    monkeypatch.setattr(fold, "ROWS_PER_PART", 9)
    other = merged(kind, folder="two", shuffled=True).resolved.export_folder
    assert content(one) == content(other)
    if kind in ("parquet", "huggingface"):
        table = pl.concat([pl.read_parquet(path) for path in sorted((one / "data").glob("*.parquet"))])
        assert table.schema["captions"] == pl.List(pl.String)
        assert sorted(table["captions"].list.len().unique()) == [1, 4]
        own = table.select(pl.col("captions").list.first() == pl.col("caption")).to_series()
        assert own.all()


def test_merged_captions_are_not_lost_silently(make_pool: Callable[..., Path]) -> None:
    recipe = make_pool(extra=MERGE.replace("KIND", "webdataset").replace("captions, words", "words"))
    with pytest.raises(RecipeError, match="would lose them; add `captions`"):
        resolve(recipe)
    recipe = make_pool(folder="other", extra="export: {columns: [captions]}\n")
    with pytest.raises(RecipeError, match="names 'captions', which nothing writes"):
        resolve(recipe)


DECONTAMINATE = """  - {kind: decontaminate, against: [seen, other], jaccard: 0.95}
references: {seen: {shards: "seen/*.tar"}, other: {shards: "other/*.tar"}}
"""
RULES = (
    """select:
  - {kind: exact_duplicates}
  - {kind: near_duplicate_images}
  - kind: bimodal_duplicates
    images: near
    captions: {kind: near, threshold: 0.95}
    when: either
    prefer: words
"""
    + DECONTAMINATE
)


def with_references(recipe: Path) -> Path:
    seen = [again(3, "nothing like it", "copy"), again(5, "neither is this", "recoded", quality=60), sample(40_000)]
    write_tar(recipe.parent / "seen" / "00000.tar", seen)
    other = [{**sample(40_001), "txt": b"A picture of thing number 7 on a TABLE"}]
    write_tar(recipe.parent / "other" / "00000.tar", other)
    return recipe


def test_what_an_evaluation_set_holds_leaves_the_pool(make_pool: Callable[..., Path], ray_cluster: object) -> None:
    outcome = run(resolve(with_references(make_pool(extra="select:\n" + DECONTAMINATE))), Cluster(), until="select")
    lines = outcome.ledger.filter(pl.col("reason") == "matches_reference")
    keys = dict(outcome.ledger.select("uid", "key").iter_rows())
    named = {keys[line["uid"]]: keys[line["duplicate_of"]] for line in lines.iter_rows(named=True)}
    assert {key: named.get(key) for key in ("s000003", "s000005", "s000007")} == {
        "s000003": "copy",
        "s000005": "recoded",
        "s000007": "s040001",
    }
    hits = outcome.record["steps"][0]["evidence"]["hits"]
    assert (hits["seen"]["image"], hits["seen"]["hash"]) == (1, 2)
    page = render(view(outcome))
    assert "in a reference set" in page and "similarity 1" in page


def test_rules_over_duplicates_fold_alike_in_parts(
    make_pool: Callable[..., Path], ray_cluster: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run(resolve(with_references(make_pool(extra=RULES))), Cluster(), until="select")
    monkeypatch.setattr(fold, "ROWS_PER_PART", 5)
    recipe = with_references(make_pool(folder="other", shuffled=True, extra=RULES))
    parts = run(resolve(recipe), Cluster(), until="select")
    evidence = [[step["evidence"] for step in outcome.record["steps"]] for outcome in (whole, parts)]
    assert evidence[0] == evidence[1]
    same = [name for name in whole.ledger.columns if name != "shard"]
    order = ["role", "source", "row", "uid"]
    assert whole.ledger.sort(order).select(same).equals(parts.ledger.sort(order).select(same))


def test_new_shards_are_checked_against_all_that_was_seen(make_pool: Callable[..., Path], ray_cluster: object) -> None:
    recipe = with_references(make_pool(extra=RULES))
    first = run(resolve(recipe), Cluster(), until="select")
    finish(first)
    late = [
        again(2, "a late copy", "late"),
        again(4, "a late recoding", "recoded", quality=75),
        again(5, "late", "eval"),
    ]
    late += [sample(900, "a picture of thing number 8 on a table!"), sample(901)]
    for home in (recipe.parent, make_pool(folder="fresh", extra=RULES).parent):
        write_tar(home / "pool" / "beta" / "late.tar", late)
    second = run(resolve(recipe), Cluster(), until="select")
    assert second.record["image_bytes_read"] == sum(len(each["jpg"]) for each in late)
    assert first.record["image_bytes_read"] > 5 * second.record["image_bytes_read"]
    fresh = run(resolve(with_references(recipe.parents[1] / "fresh" / "recipe.yaml")), Cluster(), until="select")
    same = [name for name in second.ledger.columns if name != "shard"]
    assert second.ledger.select(same).equals(fresh.ledger.select(same))
    assert [step["evidence"] for step in second.record["steps"]] == [step["evidence"] for step in fresh.record["steps"]]
    fates = second.ledger.filter(pl.col("shard").str.ends_with("late.tar")).sort("row")
    reasons = fates["reason"].to_list()
    both = second.ledger.filter(pl.col("duplicate_of").is_not_null() & (pl.col("role") == "pool"))
    touched = {*both["uid"], *both["duplicate_of"]}
    assert set(fates["uid"][:4]) <= touched and reasons[4] is None
    assert read_ledger(second.folder / "ledger")["similarity"].drop_nulls().is_between(0.5, 1).all()


def test_a_second_clip_model_has_a_veto_over_near_images(make_pool: Callable[..., Path], ray_cluster: object) -> None:
    """With the same model as its own second opinion nothing changes; a veto that nothing passes keeps every row."""
    from pipeline.demo.recipe import ENCODER

    model = f'model: "local-dir:{ENCODER}"'
    kept = {}
    for name, veto in (
        ("none", ""),
        ("same", "veto: {column: second_image_embedding, above: 0.0}, "),
        ("never", NEVER),
    ):
        steps = f"  - {{kind: clip, {model}}}\n  - {{kind: clip, {model}, column: second}}\n"
        recipe = make_pool(extra=f"{steps}select: [{{kind: semdedup, epsilon: 0.3, {veto}clusters: 1}}]\n")
        outcome = run(resolve(recipe), Cluster(), until="select")
        pool = outcome.ledger.filter(pl.col("role") == "pool")
        kept[name] = set(pool.filter(pl.col("status") == "kept")["uid"])
    assert kept["none"] == kept["same"] < kept["never"] == set(pool["uid"])

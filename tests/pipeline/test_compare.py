"""Selectors side by side: one budget, the same survivors, nothing lost or done twice, parts change nothing."""

import json
import weakref
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import yaml

import pipeline.select as fold
from pipeline.cli import main
from pipeline.cluster import Cluster
from pipeline.comparison import compare_selectors
from pipeline.comparison.embeddings import Placed
from pipeline.comparison.measures import interval
from pipeline.comparison.selections import Selections
from pipeline.comparison.text import comparison_text
from pipeline.estimate import estimate, plan_text
from pipeline.ledger import read_ledger
from pipeline.present import present
from pipeline.resolve import resolve
from pipeline.run import finish, run
from schemas.errors import CuveeError, RecipeError

PLUGIN = '''
from typing import Literal
import numpy as np
import polars as pl
import pyarrow as pa
from schemas.columns import CAPTION, IMAGE_EMBEDDING
from schemas.errors import CuveeError
from stages.rule import drop_lines
from stages.selector import Ranking, Selector
from stages.stage import Stage

class Sketch(Stage):
    """An embedding of the caption's signs, so that no model is needed; some rows have none."""
    kind: Literal["sketch"] = "sketch"
    reads, writes = (CAPTION,), (IMAGE_EMBEDDING,)
    def open(self):
        def score(batch):
            rows = pa.array([signs(text) for text in batch["caption"].to_pylist()], IMAGE_EMBEDDING.type)
            return pa.record_batch([rows, pa.nulls(len(rows), pa.string())], self.returns())
        return score

def signs(text):
    counts = np.bincount([ord(sign) % 16 for sign in text], minlength=16) + 0.5
    return None if sum(map(ord, text)) % 7 == 0 else (counts / np.linalg.norm(counts)).astype(np.float16)

class ByDigits(Selector):
    """Ranks by the number in the caption; one that ends in 5 it cannot rank."""
    kind: Literal["by_digits"] = "by_digits"
    backwards: bool = False
    refuse: bool = False
    def reads(self):
        return ("caption",)
    def rank(self, rows, context):
        if self.refuse:
            raise CuveeError("no such thing")
        number = pl.col("caption").str.extract(r"number (\\d+)").cast(pl.Int64)
        found = pl.concat(context.each_part(rows, lambda part: part.select("uid", number.alias("number"))))
        lost = found.filter(pl.col("number") % 10 == 5)
        score = (pl.col("number") * (-1 if self.backwards else 1)).cast(pl.Float64).alias("score")
        return Ranking(found.filter(pl.col("number") % 10 != 5).select("uid", score), drop_lines(lost, "ends_in_five"))
'''
SELECT = "select:\n  - {kind: at_least, column: words, value: 3}\n  - {kind: by_digits, samples: 2}\n"
SELECTORS = "{kind: by_digits}, {kind: by_digits, name: backwards, backwards: true}, {kind: dsir}"
COMPARE = f"compare: {{samples: 20, draws: 4, selectors: [{SELECTORS}]}}\n"
ROWS = 72


@pytest.fixture
def recipe(make_pool):
    def make(compare: str = COMPARE, more: str = SELECT, **where):
        path = make_pool(shards=3, rows=12, extra=f"plugins: [own.py]\n{more}{compare}", **where)
        path.write_text(path.read_text().replace("score:\n", "score:\n  - {kind: sketch}\n"))
        (path.parent / "own.py").write_text(PLUGIN)
        return path

    return make


def compared(path, **how):
    outcome = compare_selectors(resolve(path), Cluster(), **how)
    finish(outcome)
    return outcome


def told(outcome) -> dict:
    """compare.json without what may differ between two runs of one comparison."""
    facts = json.loads((outcome.folder / "compare.json").read_text())
    for line in facts["selectors"].values():
        del line["seconds"], line["reused"], line["folder"]
    return {name: value for name, value in facts.items() if name != "run"}


def choices(outcome, name: str) -> pl.DataFrame:
    return pl.read_parquet(outcome.folder / "choices" / f"{name}.parquet")


def test_all_choose_the_same_number_of_the_same_rows_and_say_why_not_the_others(recipe, ray_cluster):
    outcome = compared(recipe())
    facts = told(outcome)
    assert list(facts["selectors"]) == ["backwards", "by_digits", "dsir", "longest_caption", "random"]
    assert facts["survivors"] == ROWS  # the selector under `select` is left to `cuvee run`
    for name, line in facts["selectors"].items():
        assert line["kept"] == 20 and sum(line["not_kept"].values()) == ROWS - 20, name
        lines = choices(outcome, name)
        assert len(lines) == lines["uid"].n_unique() == ROWS and lines["kept"].sum() == 20
        assert lines.filter(pl.col("kept") == pl.col("reason").is_not_null()).is_empty()
    best = choices(outcome, "by_digits").filter("kept")["source"]
    worst = choices(outcome, "backwards").filter("kept")["source"]
    assert best.unique().to_list() == ["beta"] and worst.unique().to_list() == ["alpha"]
    assert facts["overlap"]["by_digits"]["backwards"] == 0 and facts["overlap"]["random"]["random"] == 1
    assert facts["selectors"]["by_digits"]["not_kept"]["ends_in_five"] == 8
    pool = read_ledger(outcome.folder / "ledger").filter(pl.col("role") == "pool")
    assert outcome.record["samples"] == {"in": ROWS, "kept": ROWS} and len(pool) == ROWS


def test_what_is_measured_is_what_it_says(recipe, ray_cluster):
    outcome = compared(recipe())
    facts, table = told(outcome), outcome.chosen.table
    captions = table.scores("pool", ["caption", "image_embedding"]).collect()
    kept = captions.join(choices(outcome, "by_digits").filter("kept"), on="uid", how="semi")
    line = facts["selectors"]["by_digits"]
    counts = kept["caption"].str.count_matches(r"\w+|[^\w\s]+")
    assert line["mean_tokens"] == pytest.approx(counts.mean()) and line["tokens"] == counts.sum()
    assert line["sources"] == {"alpha": 0.0, "beta": 1.0}
    rows = np.array(kept["image_embedding"].drop_nulls().to_list(), np.float64)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    values = np.linalg.eigvalsh(rows @ rows.T / len(rows))
    values = values[values > 1e-12]
    assert line["embedded"] == len(rows) < 20
    assert line["diversity"] == pytest.approx(np.exp(-(values * np.log(values)).sum()), rel=1e-3)
    assert facts["measured_on"] == {"seen": 12}
    assert facts["pool"]["kl"] <= min(line["kl"] for line in facts["selectors"].values())  # numbers of all are new
    assert set(line["against_random"]) == {"kl", "distance", "diversity", "mean_tokens", "length_shift"}


def test_a_draw_lies_in_the_interval_of_the_others_as_often_as_it_says():
    noise = np.random.default_rng(0)
    inside = [one["low"] <= x <= one["high"] for *rest, x in noise.normal(size=(2000, 7)) if (one := interval(rest))]
    assert np.mean(inside) == pytest.approx(0.95, abs=0.015)


def test_parts_and_the_order_of_shards_change_nothing(recipe, ray_cluster, monkeypatch):
    whole = told(compared(recipe()))
    for rows in (10, 30):
        monkeypatch.setattr(fold, "ROWS_PER_PART", rows)
        assert told(compared(recipe(folder=f"parts-{rows}", shuffled=True))) == whole


def test_what_parts_add_up_to_is_added_part_by_part(recipe, ray_cluster, monkeypatch):
    """A part's sums take megabytes for each selection, so no more of them are held than the one that is added."""
    monkeypatch.setattr(fold, "ROWS_PER_PART", 10)
    each_part, seen, most = Selections.each_part, [], []

    def watched(self, column, function):
        for result in each_part(self, column, function):
            seen.append(weakref.ref(result.moments if isinstance(result, Placed) else result[0][0]))
            most.append(sum(own() is not None for own in seen))
            yield result

    monkeypatch.setattr(Selections, "each_part", watched)
    assert compared(recipe()).comparison["pool"]["kl"] > 0
    assert len(seen) == 12 and max(most) <= 3, most  # six shards, captions and embeddings


def test_killed_and_run_again_it_judges_only_what_is_missing(recipe, ray_cluster, monkeypatch):
    path = recipe(COMPARE.replace("]}", ", {kind: by_digits, name: broken, refuse: true}]}"))
    judged, judge = [], fold._judged
    monkeypatch.setattr(fold, "_judged", lambda *facts: judged.append(facts[1].kind) or judge(*facts))
    with pytest.raises(CuveeError, match="compare, 'broken': rule 'by_digits': no such thing"):
        compared(path)
    assert judged == ["at_least", "random", "longest_caption", "by_digits", "by_digits", "dsir", "by_digits"]
    path.write_text(path.read_text().replace(", refuse: true", ""))
    outcome = compared(path)
    reused = {name: line["reused"] for name, line in outcome.comparison["selectors"].items()}
    assert reused == dict.fromkeys(reused, True) | {"broken": True}  # of equal settings, so it was judged before
    assert judged[7:] == ["random"] * 3  # the draws by other seeds
    again = compared(path)
    assert len(judged) == 10
    assert again.record["reused"]["measure"] and told(again) == told(outcome)
    lines, first = again.comparison["selectors"], outcome.comparison["selectors"]
    assert all(line["reused"] and line["seconds"] == first[name]["seconds"] > 0 for name, line in lines.items())
    text = comparison_text(again.comparison | {"report": ""})
    assert f"({lines['dsir']['seconds']:.2f})" in text and "seconds in brackets were spent earlier" in text
    for timing in path.parent.glob("work/timings/*.json"):  # as of a run that was killed before it noted them
        timing.unlink()
    assert {line["seconds"] for line in compared(path).comparison["selectors"].values()} == {None}


def test_a_run_and_a_comparison_share_what_they_decide(recipe, ray_cluster):
    path = recipe(more=SELECT.replace("samples: 2", "samples: 20"))
    compared(path)
    steps = run(resolve(path), Cluster(), until="select").record["steps"]
    assert [step["reused"] for step in steps] == [True, True]


@pytest.mark.parametrize("budget", ["fraction: 0.27", "tokens: 200"])
def test_other_budgets_mean_the_same_for_all(recipe, ray_cluster, budget):
    lines = told(compared(recipe(COMPARE.replace("samples: 20", budget))))["selectors"].values()
    if "fraction" in budget:
        assert {line["kept"] for line in lines} == {20}  # of all survivors, not of those that each can rank
    else:
        assert all(180 < line["tokens"] <= 200 for line in lines)


def test_the_report_the_table_and_the_json_show_it(recipe, ray_cluster, capsys, monkeypatch):
    path = recipe()
    monkeypatch.setattr("sys.argv", ["cuvee", "compare", str(path), "--json"])
    main()
    facts = json.loads(capsys.readouterr().out)
    page = (resolve(path).workspace.run(facts["run"]) / "report.html").read_text()
    assert "Selectors side by side" in page and "every choice accounted for" in page and "backwards" in page
    text = comparison_text(facts)
    assert "5 selectors at 20 samples of 72 samples" in text and "KL to target" in text
    assert facts["notes"] and facts["notes"][0] in " ".join(text.split("\n")).replace("  ", " ")


def test_measures_go_with_their_names(recipe, ray_cluster):
    path = recipe()
    first = told(compared(path))["selectors"]
    text = path.read_text()
    turned = "{kind: by_digits, backwards: true}, {kind: by_digits, name: backwards}"
    path.write_text(text.replace("{kind: by_digits}, {kind: by_digits, name: backwards, backwards: true}", turned))
    swapped = told(compared(path))["selectors"]
    assert swapped["backwards"]["sources"] == first["by_digits"]["sources"] != first["backwards"]["sources"]
    path.write_text(text.replace("name: backwards", "name: pool"))  # also the name of a row of the table
    renamed = told(compared(path))
    assert renamed["selectors"]["pool"] == first["backwards"]
    assert renamed["pool"]["kept"] == ROWS


def test_a_choice_without_an_embedding_has_no_distance(recipe, ray_cluster):
    path = recipe(COMPARE.replace("samples: 20", "samples: 1").replace(SELECTORS, "{kind: by_digits}"))
    lost = max(number for number in range(10_000, 10_036) if number % 10 != 5)
    plugin = path.parent / "own.py"
    plugin.write_text(plugin.read_text().replace("sum(map(ord, text)) % 7 == 0", f"'number {lost}' in text"))
    outcome = compared(path)
    line = told(outcome)["selectors"]["by_digits"]
    assert (line["kept"], line["embedded"], line["diversity"], line["distance"]) == (1, 0, 0.0, None)
    assert "distance" not in line["against_random"] and "kl" in line["against_random"]
    row = next(text for text in comparison_text(outcome.comparison | {"report": ""}).split("\n") if "by_digits" in text)
    assert row.split()[3] == "-"


def test_without_target_and_embeddings_it_says_what_it_leaves_out(recipe, ray_cluster):
    path = recipe(COMPARE.replace(", {kind: dsir}", ""))
    path.write_text(path.read_text().replace("  - {kind: sketch}\n", ""))
    document = yaml.safe_load(path.read_text())
    del document["target"]
    path.write_text(yaml.safe_dump(document))
    outcome = compared(path)
    facts = told(outcome)
    present(outcome)
    assert not {"kl", "distance", "diversity"} & facts["selectors"]["random"].keys()
    assert [note.split(",")[0].split(":")[1].strip() for note in facts["notes"]] == [
        "no KL and no distance to the target",
        "no diversity and no distance",
    ]
    assert comparison_text({**facts, "report": "", "selectors": outcome.comparison["selectors"]})


@pytest.mark.parametrize(
    ("compare", "message"),
    [
        (
            "{samples: 5, selectors: [{kind: randon}]}",
            "unknown kind 'randon'; did you mean 'random'",
        ),
        ("{samples: 5, selectors: [{kind: exact_duplicates}]}", "'exact_duplicates' is a rule without a budget"),
        ("{samples: 5, selectors: [{kind: by_digits, samples: 4}]}", "`samples` is given once"),
        (
            "{samples: 5, selectors: [{kind: by_digits}, {kind: by_digits}]}",
            "'by_digits' stands twice",
        ),
        ("{samples: 5, selectors: [{kind: by_digits, backward: true}]}", "did you mean 'backwards'"),
        ("{samples: 5, fraction: 0.5, selectors: [{kind: random}]}", "name exactly one"),
        ("{selectors: [{kind: random}]}", "found none of `samples`, `fraction`, `tokens`"),
        ("{sampels: 5, selectors: [{kind: random}]}", "did you mean 'samples'"),
        ("{samples: 5, selectors: []}", "compare.selectors"),
        ("{samples: 5, draws: 2, selectors: [{kind: random}]}", "compare.draws"),
        ("{samples: 5, selectors: [{kind: random, name: ../up}]}", "compare.selectors.0.name"),
    ],
)
def test_bad_sections_are_refused_before_any_work(recipe, compare, message):
    with pytest.raises(RecipeError, match=message):
        resolve(recipe(f"compare: {compare}\n"))


def test_more_than_there_is_is_refused_by_plan_and_by_the_run(recipe, ray_cluster):
    path = recipe(COMPARE.replace("samples: 20", "samples: 73"))
    facts = estimate(resolve(path))  # nothing is known of the pool yet
    assert "compare (73 samples): random, longest_caption, by_digits, backwards, dsir" in plan_text(facts)
    with pytest.raises(CuveeError, match="compare: asked for 73 samples, and there are 72 eligible rows"):
        compared(path)
    with pytest.raises(RecipeError, match="compare: asked for 73 samples of a pool of 72"):
        estimate(resolve(path))


def test_what_a_comparison_needs_is_asked_for_first(recipe):
    with pytest.raises(RecipeError, match="no `compare` section"):
        compare_selectors(resolve(recipe("")), Cluster())
    with pytest.raises(RecipeError, match="--train needs a `train` section"):
        compare_selectors(resolve(recipe(folder="other")), Cluster(), train=True)


def test_the_section_changes_no_run_and_no_export(recipe):
    one, other = resolve(recipe("")), resolve(recipe(folder="other"))
    assert one.identity() == other.identity()


@pytest.mark.slow
def test_trained_arms_are_the_choices_and_see_nothing_held_out(recipe, ray_cluster):
    """One connector per selector and seed, for real, if only for two steps."""
    models = Path(__file__).resolve().parents[2] / "pipeline" / "demo" / "models"
    path = recipe(COMPARE.replace(f"{SELECTORS}", "{kind: by_digits}, {kind: dsir}"))
    document = yaml.safe_load(path.read_text())
    document["score"] = [*document["score"][1:], {"kind": "clip", "model": f"local-dir:{models / 'encoder'}"}]
    document["export"] = {"kind": "webdataset"}
    document["train"] = {
        "language_model": str(models / "language_model"),
        "budget": {"steps": 2},
        "batch": 4,
        "seeds": 3,
    }
    path.write_text(yaml.safe_dump(document))
    outcome = compared(path, train=True)
    training, held = outcome.comparison["training"], set(outcome.chosen.held["uid"])
    assert list(training["arms"]) == ["by_digits", "dsir", "longest_caption", "random"]
    assert {len(arm["runs"]) for arm in training["arms"].values()} == {3}
    pairs = {(line["left"], line["right"]) for line in training["differences"]}
    assert pairs == {(name, "random") for name in ("by_digits", "dsir", "longest_caption")}
    assert held and outcome.comparison["measured_on"] == {"held_out": len(held), "seen": 12 - len(held)}
    arms = [pl.read_parquet(folder / "feed.parquet") for folder in (path.parent / "work" / "arms").iterdir()]
    assert sorted(len(arm) for arm in arms) == [20] * 4 and not {uid for arm in arms for uid in arm["uid"]} & held
    present(outcome)
    assert "NLL per caption token after training" in (outcome.folder / "report.html").read_text()
    assert compared(path, train=True).record["reused"]["train"]

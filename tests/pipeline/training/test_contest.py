"""Finished selections held side by side: equal budgets and starts, the same held-out pairs, honest costs."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from pipeline.cli import main
from pipeline.cluster import Cluster
from pipeline.replay import tars_of
from pipeline.resolve import resolve
from pipeline.run import finish, run
from pipeline.sidecars import read_json
from pipeline.training.contest import Contest, contest, hold_contest
from pipeline.training.contestants import contestants
from pipeline.training.costs import costs
from pipeline.training.llava import export_llava
from pipeline.training.text import contest_text
from schemas.errors import CuveeError, RecipeError
from stages.train.samples import read_pairs

MODELS = Path(__file__).resolve().parents[3] / "pipeline" / "demo" / "models"
TRAIN = {
    "vision": "clip", "language_model": str(MODELS / "language_model"), "budget": {"steps": 3}, "batch": 8,
    "seeds": 3, "generated": 2,
}  # fmt: skip


@pytest.fixture
def recipe(make_pool: Callable[..., Path]) -> Callable[..., Path]:
    """A recipe over one pool and one workspace; some of its samples show target images."""
    if not (MODELS / "encoder").is_dir():
        pytest.skip("the shipped models are not in pipeline/demo/models; train them with jobs/train_demo_*.py")
    made = make_pool(shards=1, rows=30)
    shutil.copy(made.parent / "target" / "00000.tar", made.parent / "pool" / "alpha" / "leak.tar")

    def make(name: str, **changed: object) -> Path:
        document = yaml.safe_load(made.read_text())
        document["score"].append({"kind": "clip", "model": f"local-dir:{MODELS / 'encoder'}"})
        document |= {"name": name, "export": {"samples": 40}, "train": TRAIN}
        path = made.parent / f"{name}.yaml"
        path.write_text(yaml.safe_dump({**document, **changed}))
        return path

    return make


def ran(path: Path, until: str = "export") -> Path:
    outcome = run(resolve(path), Cluster(), until=until)  # type: ignore[arg-type]
    finish(outcome)
    return outcome.folder


def held(asked: Contest, out: Path | None = None) -> dict:
    """In this process: Ray Train has tests of its own."""
    import pipeline.training.contest as module

    original, module.compare = module.compare, lambda *a, **k: original(*a, **{**k, "cluster": None})
    try:
        return hold_contest(asked, out, Cluster())
    finally:
        module.compare = original


def test_selections_meet_on_equal_terms(recipe: Callable[..., Path], ray_cluster: object, tmp_path: Path) -> None:
    short = {"select": [{"kind": "at_most", "column": "words", "value": 100}]}
    plain = ran(recipe("plain", train=None))
    listed = ran(recipe("listed", export={"samples": 40, "materialize": False}, train=None))
    judge = recipe("judge", **short)
    judged = ran(judge)
    named = [f"plain={plain}", f"tars={plain.parents[1] / 'export' / 'plain'}", f"listed={listed}", f"judged={judged}"]
    told = held(contest(named, judge))
    arms, lines = told["training"]["arms"], told["selections"]
    assert list(lines) == list(arms) == ["plain", "tars", "listed", "judged"] and told["against"] == "plain"
    assert arms["plain"] == arms["tars"] == arms["listed"], "one selection, read from tars and from the pool"
    assert lines["plain"]["matches_held_out"] > 0, "the pool shows target images"
    assert lines["judged"]["matches_held_out"] == 0, "its own run has left them out"
    assert arms["plain"]["samples"] == 40 - lines["plain"]["matches_held_out"]
    assert {len(arm["runs"]) for arm in arms.values()} == {3}
    twins = [line for line in told["training"]["differences"] if line["left"] == "tars"]
    assert twins and all(line["per_seed"] == [0, 0, 0] for line in twins)
    files = {file: file.stat().st_mtime_ns for file in Path(told["folder"]).glob("jobs/*.json")}
    again = held(contest(named, judge))
    assert again == told and {file: file.stat().st_mtime_ns for file in files} == files
    assert len(files) == 12
    text = contest_text(told)
    assert "judged - plain" in text and "curation s, alone" in text
    page = Path(told["report"]).read_text()
    assert "Selections compared" in page and "curation" in page and "Funnel" not in page
    assert page.count("held-out sample") == len(arms["plain"]["captions"]) == 2, "pictures beside what is written"


@pytest.mark.slow
def test_the_judge_decides_as_its_own_run_does(
    recipe: Callable[..., Path], ray_cluster: object, tmp_path: Path
) -> None:
    """The contest of an export and the proof of gain of the run that made it train the same connectors."""
    judge = recipe("judge", train={**TRAIN, "visual_tokens": 64})
    folder = ran(judge, "train")
    told = held(contest([f"curated={folder}", f"again={folder}"], None), tmp_path / "out")
    proof = read_json(folder / "run.json")["training"]
    assert told["training"]["arms"]["curated"]["runs"] == proof["arms"]["curated"]["runs"]
    assert told["training"]["evaluation"] == proof["evaluation"]
    assert json.loads((tmp_path / "out" / "contest.json").read_text()) == told
    card = (tmp_path / "out" / "connectors" / "again-2" / "README.md").read_text()
    assert proof["settings"]["language_model"] in card and told["selections"]["again"]["address"] in card
    written = export_llava(folder, tmp_path / "llava", "curated", 1)
    assert written["largest_difference"] < 1e-4 and "## Metrics" in (tmp_path / "llava" / "README.md").read_text()
    with pytest.raises(RecipeError, match="no connector 'curated-7'; it has curated-0, curated-1"):
        export_llava(folder, tmp_path / "other", "curated", 7)


def test_costs_are_those_that_were_measured(recipe: Callable[..., Path], ray_cluster: object) -> None:
    first, second = (
        ran(recipe("first", train=None)),
        ran(recipe("second", train=None, score=[{"kind": "caption_text"}])),
    )
    found = contestants([f"first={first}", f"second={second}", f"third={second}"])
    paid = costs(found)
    assert all(line and line["whole"] for line in paid.values())
    record = read_json(first / "run.json")
    scored = sum(line["seconds"] for line in record["stages"])
    assert paid["first"]["alone"]["scoring"] == pytest.approx(scored) and scored > 0
    seconds = {line["kind"]: line["seconds"] for line in record["stages"]}
    assert paid["second"]["alone"]["scoring"] == pytest.approx(seconds["caption_text"]), "it reused what `first` paid"
    assert paid["second"]["shared"]["scoring"] == pytest.approx(seconds["caption_text"] / 3)
    rest = scored - seconds["caption_text"]
    assert paid["first"]["shared"]["scoring"] == pytest.approx(rest + seconds["caption_text"] / 3)
    shutil.rmtree(first)
    assert costs(contestants([f"second={second}"]))["second"]["whole"] is False
    away = shutil.move(second.parents[1] / "export" / "second", second.parents[2] / "elsewhere")
    assert costs(contestants([f"moved={away}"]))["moved"] is None


def test_a_run_whose_export_was_replaced_is_read_from_its_pool(
    recipe: Callable[..., Path], ray_cluster: object
) -> None:
    path = recipe("one", train=None, export={"samples": 70})
    before = ran(path)
    manifest = before.parents[1] / "export" / "one" / "manifest.json"
    tars = sorted((pair.key, pair.image, pair.caption) for pair in read_pairs(tars_of(manifest)))
    ran(recipe("one", train=None, export={"samples": 20}))
    (found,) = contestants([str(before)])
    read = sorted((pair.key, pair.image, pair.caption) for reader in found.readers for pair in reader())
    assert read == tars and len({key for key, *_ in tars}) == 70
    (newest,) = contestants([str(path)])
    assert newest.run != before and newest.name == newest.record["run"]


def test_what_cannot_be_compared_is_refused(
    recipe: Callable[..., Path], ray_cluster: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    done, judge = ran(recipe("done", train=None)), recipe("judge")
    two = [f"a={done}", f"b={done}"]

    def refused(said: str, named: list[str], by: Path | None) -> None:
        with pytest.raises(CuveeError, match=said):
            contest(named, by)

    refused("expected two or more", two[:1], judge)
    refused("two selections are called", [str(done), str(done)], judge)
    refused("is no selection", [two[0], str(tmp_path)], judge)
    refused("has no finished run", [two[0], str(judge)], judge)
    refused("which recipe judges", two, None)
    refused("needs 3 or more", two, recipe("few", train={**TRAIN, "seeds": 2}))
    refused("counts epochs", two, recipe("epochs", train={**TRAIN, "budget": {"epochs": 1}}))
    scored = ran(recipe("scored", train=None), "score")
    refused("ended before it drew", [two[0], str(scored)], judge)
    lines = (
        (["train", "--compare", *two], "which recipe judges"),
        (["train", str(judge), str(judge)], "expected one recipe"),
        (["llava", str(tmp_path), str(tmp_path / "out")], "is no selection"),
        (["llava", str(done), str(tmp_path / "out")], "trained none"),
    )
    for line, said in lines:
        monkeypatch.setattr("sys.argv", ["cuvee", *line])
        with pytest.raises(SystemExit) as left:
            main()
        assert left.value.code == 2 and said in capsys.readouterr().err
    assert issubclass(RecipeError, CuveeError)

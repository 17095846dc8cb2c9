"""`cuvee trials` end to end on embeddings: the table, what is held out, resuming, the same bytes, refusals."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import yaml

from pipeline.cli import main
from pipeline.cluster import Cluster
from pipeline.estimate import estimate, plan_text
from pipeline.present import present
from pipeline.resolve import resolve
from pipeline.run import Outcome, run
from pipeline.sidecars import read_json
from pipeline.trials import run_trials
from pipeline.trials.text import trials_text
from schemas.errors import CuveeError, RecipeError
from stages.mixture.trials_table import mixture_ids, read_trials
from tests.pipeline.trials.conftest import TRIALS
from tests.pools import sample, write_tar

ALL = 4 * 2 * 2


def ran(path: Path) -> Outcome:
    return run_trials(resolve(path), Cluster())


def folder(path: Path) -> Path:
    return path.parent / "work" / "trials" / "small"


def jobs(path: Path) -> dict[str, int]:
    return {file.name: file.stat().st_mtime_ns for file in (folder(path) / "jobs").glob("*.json")}


def changed(path: Path, **settings: object) -> Path:
    document = yaml.safe_load(path.read_text())
    document["trials"] |= settings
    path.write_text(yaml.safe_dump(document))
    return path


def test_the_table_says_what_was_drawn_and_what_it_was_worth(recipe: Callable[..., Path], ray_cluster: object) -> None:
    path = recipe()
    outcome = ran(path)
    assert outcome.trials is not None
    table = read_trials(outcome.trials["table"])
    assert table.sources == ("alpha", "beta") and table.notes == () and len(table.trials) == ALL
    assert table.metrics == tuple(
        sorted(f"{m}.{held}" for m in ("nll", "brier") for held in ("alpha", "beta", "target"))
    )
    assert sorted(set(table.budgets.tolist())) == [128, 512] and sorted(set(table.seeds.tolist())) == [0, 1]
    assert len(set(mixture_ids(table.shares).tolist())) == 4 and np.isfinite(table.values).all()
    for file in (folder(path) / "jobs").iterdir():
        facts = read_json(file)
        assert sum(facts["drawn"].values()) == facts["budget"]
        assert all(abs(n - facts["budget"] * facts["shares"][name]) < 1 for name, n in facts["drawn"].items())
        row = table.trials.index(facts["name"])
        assert table.values[row, table.metrics.index("nll.beta")] == facts["metrics"]["beta"]["nll"]
    # More of `beta` is better for `beta` and worse for what is like `alpha`.
    large = table.budgets == 512
    for metric, sign in (("nll.alpha", 1), ("nll.target", 1), ("brier.beta", -1)):
        slope = np.polyfit(table.shares[large, 1], table.values[large, table.metrics.index(metric)], 1)[0]
        assert sign * slope > 0, metric
    present(outcome)
    text = trials_text({**outcome.trials, "report": ""})
    assert "4 mixtures x 2 budgets x 2 seeds = 16 trials, 16 of them run now" in text
    assert outcome.trials["mix"] == "mix: {kind: pilot_trials, trials: work/trials/small/trials.parquet}"
    assert outcome.trials["mix"] in text and "nll.target" in text
    assert outcome.record["trials"]["most_repeats"] == {"alpha": 7, "beta": 7}


def test_nothing_measured_on_is_drawn_and_twins_stay_together(
    recipe: Callable[..., Path], ray_cluster: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipeline.trials.split import hold_out

    path = recipe(changed_trials(held_out=0.3))
    numbers = [*range(30), *range(20_000, 20_004)]
    twins = [sample(n) | {"__key__": f"t{n:06d}".encode(), "txt": f"thing {n} again".encode()} for n in numbers]
    write_tar(path.parent / "pool" / "beta" / "90000.tar", twins)
    chosen = run(resolve(path), Cluster(), until="select").chosen
    trials = resolve(path).recipe.trials
    assert trials is not None
    split = hold_out(chosen, trials)
    assert split.matching >= 1  # a twin of a target image is not always one that is held out itself
    drawn, held = pl.concat(split.drawn_from.values()), pl.concat(split.held.values())
    assert not set(drawn["image_hash"]) & set(held["image_hash"])
    assert len(drawn) + len(held) - len(split.held["target"]) + split.matching == 4 * 24 * 2 + len(twins)
    assert not set(drawn["image_hash"]) & {row["image_hash"] for row in split.held["target"].to_dicts()}
    assert 15 < len(split.held["alpha"]) < 45 and len(split.held["target"]) == 24
    again = hold_out(run(resolve(path), Cluster(), until="select").chosen, trials)
    assert all(split.held[name].equals(again.held[name]) for name in split.held)
    monkeypatch.setattr("pipeline.trials.split.ENOUGH", 15)
    few = hold_out(chosen, trials.model_copy(update={"budgets": (10, 20)}))
    assert {name: len(rows) for name, rows in few.drawn_from.items()} == {"alpha": 20, "beta": 20}
    assert set(few.drawn_from["alpha"]["uid"]) <= set(split.drawn_from["alpha"]["uid"])


def changed_trials(**settings: object) -> str:
    return yaml.safe_dump({"trials": {**yaml.safe_load(TRIALS)["trials"], **settings}})


def test_workers_and_a_kill_change_no_byte_and_only_what_is_missing_runs(
    recipe: Callable[..., Path], ray_cluster: object
) -> None:
    there = recipe(folder="there")
    assert ran(there).trials["computed"] == ALL  # type: ignore[index]
    killed = recipe(folder="killed")
    finished = kill_after(killed, 3)
    assert 3 <= len(finished) < ALL
    command = [str(Path(sys.executable).with_name("cuvee")), "trials", str(killed), "--workers", "1", "--json"]
    again = subprocess.run(command, capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    facts = json.loads(again.stdout)
    # A worker outlives its driver for a moment: it may have finished one more.
    assert 0 < facts["computed"] <= ALL - len(finished) and facts["trials"] == ALL
    assert jobs(killed).items() >= finished.items()
    for name in ("trials.parquet", "trials.json", *(f"jobs/{name}" for name in jobs(there))):
        assert (folder(killed) / name).read_bytes() == (folder(there) / name).read_bytes(), name
    assert not [file for file in folder(killed).rglob(".*")]


def test_what_is_there_is_not_run_again(recipe: Callable[..., Path], ray_cluster: object) -> None:
    path = recipe()
    ran(path)
    table = (folder(path) / "trials.parquet").read_bytes()
    lost = sorted(jobs(path))[3:8]
    for name in lost:
        (folder(path) / "jobs" / name).unlink()
    kept = jobs(path)
    again = ran(path)
    assert again.trials is not None and again.trials["computed"] == len(lost)
    assert jobs(path).items() >= kept.items() and set(jobs(path)) == {*kept, *lost}
    assert (folder(path) / "trials.parquet").read_bytes() == table


def kill_after(path: Path, count: int) -> dict[str, int]:
    """SIGKILL the command as soon as so many trials are finished; the files that stand then."""
    command = [str(Path(sys.executable).with_name("cuvee")), "trials", str(path), "--workers", "1"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    while process.poll() is None and len(jobs(path)) < count:
        time.sleep(0.002)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    return jobs(path)


def test_running_again_starts_nothing_and_more_runs_only_what_is_new(
    recipe: Callable[..., Path],
    ray_cluster: object,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = recipe()
    monkeypatch.setattr("sys.argv", ["cuvee", "trials", str(path), "--json"])
    main()
    assert json.loads(capsys.readouterr().out)["computed"] == ALL
    before = jobs(path)
    with Cluster() as cluster:
        again = run_trials(resolve(path), cluster)
        assert not cluster.started and again.record["reused"]["trials"]
    more = ran(changed(path, seeds=3))
    assert more.trials is not None and more.trials["computed"] == ALL // 2
    assert jobs(path).items() >= before.items()
    wider = ran(changed(path, budgets=[128, 256, 512], seeds=2))
    assert wider.trials is not None and wider.trials["computed"] == ALL // 2
    assert len(read_trials(wider.trials["table"]).trials) == ALL * 3 // 2


def test_a_recipe_may_mix_by_the_table_that_its_trials_make(
    recipe: Callable[..., Path],
    ray_cluster: object,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    table = "work/trials/small/trials.parquet"
    path = changed(recipe(), count=5, design="lattice")
    path.write_text(path.read_text() + f"mix: {{kind: pilot_trials, trials: {table}}}\nexport: {{samples: 40}}\n")
    with pytest.raises(RecipeError, match="`cuvee trials RECIPE` makes one"):
        resolve(path)
    monkeypatch.setattr("sys.argv", ["cuvee", "trials", str(path), "--json"])
    main()
    facts = json.loads(capsys.readouterr().out)
    assert facts["mix"] == f"mix: {{kind: pilot_trials, trials: {table}}}"
    shares = run(resolve(path), Cluster(), until="mix").record["shares"]
    assert shares["alpha"]["realised"] > 0.9  # the target is like `alpha`


def test_the_plan_names_the_trials(recipe: Callable[..., Path]) -> None:
    text = plan_text(estimate(resolve(recipe())))
    assert "trials (16): contrastive_probe on mixtures by lattice, 128, 512 samples" in text


def test_the_section_changes_no_run_and_no_export(recipe: Callable[..., Path]) -> None:
    assert resolve(recipe("")).identity() == resolve(recipe(folder="other")).identity()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"design": "lattise"}, "unknown design 'lattise'; did you mean 'lattice'"),
        (
            {"design": {"kind": "lattice", "division": 3}},
            "trials.design: division: unknown key; did you mean 'divisions'",
        ),
        ({"design": "d_optimal", "count": 2}, "of 2 sources needs 3 mixtures, found `count: 2`"),
        ({"pilot": "probe"}, "unknown pilot 'probe'"),
        ({"pilot": "connector"}, "by the settings of `train`, which the recipe lacks"),
        ({"pilot": {"kind": "contrastive_probe", "wide": 3}}, "trials.pilot: wide: unknown key; did you mean 'width'"),
        ({"budgets": [500]}, "trials.budgets: found 1 budget; how a mixture's worth changes"),
        ({"budgets": [500, 500]}, "found 1 budget"),
        ({"budgets": [500, 510]}, r"\[500, 510\] are \[512, 512\] samples in whole batches"),
        ({"held_out": 1.5}, "trials.held_out"),
        ({"coutn": 3}, "trials.coutn: unknown key; did you mean 'count'"),
    ],
)
def test_bad_sections_are_refused_before_any_work(
    recipe: Callable[..., Path], settings: dict[str, object], message: str
) -> None:
    path = changed(recipe(), **settings)
    with pytest.raises(RecipeError, match=message):
        run_trials(resolve(path), Cluster())
    assert not (path.parent / "work").exists()


def test_a_recipe_without_the_section_with_one_source_or_without_embeddings_is_refused(
    recipe: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(RecipeError, match="no `trials` section"):
        run_trials(resolve(recipe("")), Cluster())
    path = recipe(folder="blind")
    path.write_text(path.read_text().replace("  - {kind: two_views}\n", ""))
    with pytest.raises(RecipeError, match="reads 'image_embedding', which no score step writes"):
        run_trials(resolve(path), Cluster())
    monkeypatch.setattr("sys.argv", ["cuvee", "check", str(path)])
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 2 and "no score step writes" in capsys.readouterr().err
    path = recipe(folder="alone")
    document = yaml.safe_load(path.read_text())
    document["pool"] = document["pool"][:1]
    path.write_text(yaml.safe_dump(document))
    with pytest.raises(RecipeError, match="one source, 'alpha'"):
        run_trials(resolve(path), Cluster())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"held_out": 5}, "held-out source 'alpha' has 5 pairs of 96 survivors, expected at least 16"),
        ({"held_out": 90}, "source 'alpha' has 6 of 96 survivors to draw from"),
        ({"budgets": [128, 4096]}, r"they add up to 0\.37.*less than 1 \(alpha 0\.18.*lower the largest budget"),
        (
            {"pilot": {"kind": "contrastive_probe", "candidates": 21}},
            "'alpha' has 20 pairs, fewer than the 21 `candidates`",
        ),
    ],
)
def test_too_little_data_is_refused_with_numbers(
    recipe: Callable[..., Path], ray_cluster: object, settings: dict[str, object], message: str
) -> None:
    with pytest.raises(CuveeError, match=message):
        ran(changed(recipe(), **settings))


def test_a_target_without_captions_is_refused(recipe: Callable[..., Path], ray_cluster: object) -> None:
    path = recipe()
    write_tar(path.parent / "target" / "00000.tar", [sample(n, "no digits here") for n in range(20_000, 20_024)])
    with pytest.raises(CuveeError, match="'target' has no pair with a caption and embeddings: of 24 samples"):
        ran(path)

"""A user's runs as a CSV, from the recipe to the exported shards, the pin and the report."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pipeline.cluster import Cluster
from pipeline.present import present
from pipeline.resolve import resolve
from pipeline.run import Outcome, finish, run
from schemas.errors import RecipeError
from stages.mixture.trials_table import read_trials, write_trials

MIX = """mix: {kind: pilot_trials, trials: runs.csv, predictor: linear, bootstrap: 20, max_share: 0.75}
export: {kind: webdataset, samples: 20, samples_per_shard: 8}
"""
Made = Callable[..., Path]


def runs(count: int = 12) -> str:
    """Alpha helps."""
    shares = np.linspace(0, 1, count)
    lines = [f"{share:.4f},{1 - share:.4f},{2 + np.exp(-share):.5f}" for share in shares]
    return "share.alpha,share.beta,nll.target\n" + "\n".join(lines) + "\n"


@pytest.fixture
def made(make_pool: Made) -> Made:
    def make(folder: str = "one", table: str = runs()) -> Path:
        recipe = make_pool(folder=folder, extra=MIX)
        (recipe.parent / "runs.csv").write_text(table)
        return recipe

    return make


def ran(recipe: Path) -> Outcome:
    outcome = run(resolve(recipe), Cluster(), until="export")
    present(outcome)
    finish(outcome)
    return outcome


def tree(outcome: Outcome) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in outcome.resolved.export_folder.iterdir()}


def test_runs_of_ones_own_decide_the_mixture(made: Made, ray_cluster: object) -> None:
    recipe = made()
    first = ran(recipe)
    mixture = first.record["mixture"]
    assert mixture["weights"] == {"alpha": 1.0, "beta": 0.0} and mixture["capped"] == {"alpha": 0.75, "beta": 0.25}
    assert mixture["binding"] == ["max_share: alpha"]
    assert first.manifest is not None and first.manifest["sources"] == {"alpha": 15, "beta": 5}
    page = (first.folder / "report.html").read_text()
    assert 'id="trials"' in page and "predicted nll.target" in page and "12 pilot runs" in page
    again = ran(recipe)
    assert again.blend is not None and again.blend.reused

    moved = made("two")
    text = moved.read_text()
    (moved.parent / "deep").mkdir()
    (moved.parent / "runs.csv").rename(moved.parent / "deep" / "my.csv")
    moved.write_text(text.replace("runs.csv", "deep/my.csv"))
    second = ran(moved)
    assert second.record["recipe_fingerprint"] == first.record["recipe_fingerprint"]
    assert tree(second) == tree(first)

    (recipe.parent / "runs.csv").write_text(runs(13))
    third = ran(recipe)
    assert third.record["recipe_fingerprint"] != first.record["recipe_fingerprint"]
    assert third.blend is not None and not third.blend.reused


def test_pins_hold_while_the_table_is_the_same(made: Made, ray_cluster: object) -> None:
    one, two = made("one"), made("two")
    first = ran(one)
    with one.open("a") as file:
        file.write(f"fits: {first.name}\n")
    second = ran(one)
    assert second.record["mixture"]["fit"]["pinned"] and second.record["mixture"]["evidence"]["pinned"]
    assert second.record["mixture"]["weights"] == first.record["mixture"]["weights"]
    with two.open("a") as file:
        file.write(f"fits: {os.path.relpath(first.folder, two.parent)}\n")
    assert ran(two).record["recipe_fingerprint"] == second.record["recipe_fingerprint"]
    (two.parent / "runs.csv").write_text(runs(13))
    refitted = ran(two)
    assert not refitted.record["mixture"]["fit"]["pinned"]
    assert any(note.startswith("fits: pilot_trials was fitted anew") for note in refitted.record["notes"])


def test_a_bad_table_is_refused_before_ray_starts(made: Made) -> None:
    recipe = made(table=runs() + "0.9,0.9,2\n")
    with pytest.raises(RecipeError, match=r"runs\.csv, line 14: the 2 shares sum to 1\.8, expected 1"):
        resolve(recipe)
    assert not (recipe.parent / "work").exists()
    (recipe.parent / "runs.csv").write_text(runs().replace("alpha", "gamma"))
    with pytest.raises(RecipeError, match=r"drew from 'gamma', which the pool does not have \(alpha, beta\)"):
        resolve(recipe)
    (recipe.parent / "runs.csv").unlink()
    with pytest.raises(RecipeError, match=r"there is no file 'runs\.csv' beside the recipe; `cuvee trials"):
        resolve(recipe)
    resolve(recipe, trials=False)  # what is to make the table
    resolve(recipe, models=False)  # what only looks


def test_a_parquet_of_the_same_runs_gives_the_same_mixture(made: Made, ray_cluster: object) -> None:
    recipe = made()
    write_trials(read_trials(recipe.parent / "runs.csv"), recipe.parent / "runs.parquet")
    first = ran(recipe)
    recipe.write_text(recipe.read_text().replace("runs.csv", "runs.parquet"))
    second = ran(recipe)
    for part in ("weights", "capped", "intervals", "objective"):
        assert second.record["mixture"][part] == first.record["mixture"][part]
    shutil.rmtree(recipe.parent / "work")

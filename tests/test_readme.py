"""What the README shows works as it stands there."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import polars as pl
import yaml

from pipeline.cluster import Cluster
from pipeline.resolve import resolve
from pipeline.run import run
from schemas.recipe import Recipe

README = Path(__file__).resolve().parents[1] / "README.md"


def block(language: str, containing: str) -> str:
    """The first fenced block of a language that holds some text."""
    for body in re.findall(rf"```{language}\n(.*?)```", README.read_text(), re.S):
        if containing in body:
            return str(body)
    raise AssertionError(f"the README has no {language} block with {containing!r}")


def test_the_recipe_is_valid() -> None:
    Recipe.model_validate(yaml.safe_load(block("yaml", "pool:")))


def test_the_stage_of_your_own_runs_and_its_file_is_its_address(
    make_pool: Callable[..., Path], ray_cluster: object
) -> None:
    recipe = make_pool(extra="select: [{kind: at_least, column: brightness, value: 20}]\nplugins: [brightness.py]\n")
    recipe.write_text(recipe.read_text().replace("score:\n", "score:\n  - {kind: brightness}\n"))
    plugin = recipe.parent / "brightness.py"
    plugin.write_text(block("python", "brightness.py"))
    resolved = resolve(recipe)
    with Cluster(workers=2) as cluster:
        outcome = run(resolved, cluster, until="select")
    values = outcome.chosen.table.scores("pool", ["brightness"]).collect()["brightness"]
    assert values.null_count() == 0
    assert 20 < float(pl.Series(values).mean()) < 235  # type: ignore[arg-type]
    plugin.write_text(plugin.read_text() + "\n# edited\n")
    again = resolve(recipe)
    changed = {kind for kind in again.addresses if again.addresses[kind] != resolved.addresses[kind]}
    assert changed == {"brightness"}


def test_every_reason_code_of_the_reports_is_in_the_table() -> None:
    documented = set(re.findall(r"`([a-z_<>0-9]+)`", README.read_text(), re.M))
    root = README.parent
    used = set()
    for package in ("stages", "pipeline"):
        for path in (root / package).rglob("*.py"):
            if "demo" not in path.parts and "report" not in path.parts:
                used |= set(re.findall(r'reason(?:=|: | = )"([a-z_]+)"', path.read_text()))
    assert used, json.dumps(sorted(documented))
    assert used <= documented, sorted(used - documented)

"""What the README shows works as it stands there."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
import yaml

from pipeline.cluster import Cluster
from pipeline.resolve import resolve
from pipeline.run import run
from schemas.recipe import Recipe
from stages.kinds import kinds
from stages.rule import Rule
from stages.schedule import Schedule
from stages.selector import Selector
from stages.stage import Stage

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


def test_a_reason_has_one_row() -> None:
    section = README.read_text().split("\n## Reason codes\n")[1].split("\n## ")[0]
    rows = [code for cell in re.findall(r"^\| (`[^|]*) \|", section, re.M) for code in re.findall(r"`([^`]+)`", cell)]
    assert len(rows) > 50 and sorted(set(rows)) == sorted(rows)


@pytest.mark.parametrize("page", ["README.md", "bench/RESULTS.md"])
def test_headings_and_tables_stand_apart(page: str) -> None:
    """A merge leaves none of them against what comes before, and no heading twice."""
    text = re.sub(r"^```.*?^```$", "```", (README.parent / page).read_text(), flags=re.M | re.S)
    assert not re.findall(r"^[^\n]+\n#+ .*$", text, re.M)
    assert not re.findall(r"^[^|\n][^\n]*\n\|.*$", text, re.M)
    headings = re.findall(r"^#+ .*$", text, re.M)
    assert len(set(headings)) == len(headings) > 3
    assert not re.findall(r"^(?:<{7}|={7}|>{7})", text, re.M)


def test_every_score_has_a_row_and_every_declared_column_stands_in_it() -> None:
    section = README.read_text().split("\n## Scores\n")[1].split("\n## ")[0]
    rows: dict[str, str] = {}
    for kind, columns in re.findall(r"^\| `(\w+)` \| ([^|]*)\|", section, re.M):
        rows[kind] = rows.get(kind, "") + columns
    for kind, stage in kinds(Stage).items():
        if not stage.__module__.startswith("stages."):
            continue
        assert kind in rows, f"the README's table of scores has no row for {kind}"
        written = stage.__dict__.get("writes")
        names = [field.name for field in written] if isinstance(written, tuple) else []
        assert [name for name in names if f"`{name}`" not in rows[kind]] == [], kind


def test_every_row_of_the_scores_says_what_it_means_its_range_its_cost_and_its_source() -> None:
    section = README.read_text().split("\n## Scores\n")[1].split("\n### ")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in re.findall(r"^\| `.*\|$", section, re.M)]
    costs: dict[str, str] = {}
    for kind, *_, cost, gpu, _ in rows:
        costs[kind] = costs.get(kind, "") + cost
        assert gpu in ("-", "not measured"), kind
    assert all(costs.values()), costs
    assert [row[0] for row in rows if len(row) != 7 or not all(row[:4]) or not row[6]] == []


def test_what_is_said_of_planted_mismatches_is_what_was_measured() -> None:
    results = (README.parent / "bench/RESULTS.md").read_text()
    results = results.split("\n## Visual dependence of planted mismatches\n")[1]
    measured = re.findall(r"\d\.\d{3}", re.findall(r"^\| \d+ mismatched \|.*$", results, re.M)[0])
    said = README.read_text().split("tells planted mismatches from clean pairs")[1].split("\n\n")[0]
    assert re.findall(r"\d\.\d{3}", said) == measured


def test_every_selector_has_a_row_and_what_is_shown_of_them_is_valid() -> None:
    section = README.read_text().split("\n## Selecting\n")[1].split("\n## ")[0]
    rows = set(re.findall(r"^\| `(\w+)` \| [^|]+ \| [^|]+ \| [^|]+ \|$", section, re.M))
    rules = {kind: rule for kind, rule in kinds(Rule).items() if rule.__module__.startswith("stages.")}
    selectors = {kind for kind, rule in rules.items() if issubclass(rule, Selector)}
    assert selectors and selectors <= rows, f"the README's table of selectors has no row for {selectors - rows}"
    assert rows <= set(rules), f"the README's table of selectors has a row for {rows - set(rules)}, which is no rule"
    shown = yaml.safe_load(block("yaml", "kind: sus_x"))
    for line in shown["select"]:
        rules[line["kind"]].model_validate(line)


def test_every_place_of_the_tree_is_there() -> None:
    tree = README.read_text().split("\n## The tree\n")[1]
    root = README.parent
    for package in ("schemas", "stages", "pipeline"):
        part = re.search(rf"^{package}/ .*?(?=^\S)", tree, re.M | re.S)
        assert part is not None
        named = {
            name
            for line in part[0].splitlines()[1:]
            for name in re.findall(r"[\w/]+(?:\.py|/)", re.split("  +", line.strip())[0])
        }
        found = {path.name + "/" * path.is_dir() for path in (root / package).iterdir() if path.name[0] not in "_."}
        assert {name.split("/")[0] + "/" * ("/" in name) for name in named} == found, package


def test_every_schedule_has_a_row_with_its_settings_and_defaults() -> None:
    section = README.read_text().split("\n## Schedules\n")[1].split("\n## ")[0]
    rows = dict(re.findall(r"^\| `(\w+)` \| [^|]+ \| [^|]+ \| ([^|]+) \|$", section, re.M))
    ours = {kind: made for kind, made in kinds(Schedule).items() if made.__module__.startswith("stages.")}
    assert set(rows) == set(ours)
    for kind, text in rows.items():
        told = re.findall(r"`(\w+): ([\w.e-]+|\[\.\.\.\])`", text)
        own = set(ours[kind].model_fields) - {"kind", "aim", "tail"}
        assert {name for name, _ in told} <= own and own - {name for name, _ in told} <= {"every", "probe"}, kind
        for name, value in told:
            default = ours[kind].model_fields[name].default
            assert value == "[...]" or str(default).lower() == value or float(default) == float(value), (kind, name)
    shown = yaml.safe_load(block("yaml", "kind: doge, every"))["train"]["schedule"]
    ours[shown["kind"]].model_validate(shown)

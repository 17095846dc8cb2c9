"""Imports point one way, stages know no Ray, and the command starts light."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ORDER = ("schemas", "stages", "pipeline", "jobs")
ROOMS = ("quality", "alignment", "duplicates", "target", "mixture", "train")
SHARED = tuple(
    f"stages.mixture.{name}"
    for name in (
        "limits",
        "trials_table",
        "predictors",
        "proposer",
        "designs",
        "schedule",
        "source_ranking",
        "fitted_shares",
    )
)
"""What stands in a room and is no method: mixers, the engine and each other may import it."""


def is_method(module: str) -> bool:
    """A module of a room, unless it is machinery that methods share."""
    shared = any(module == name or module.startswith(f"{name}.") for name in SHARED)
    return f"{module}.".startswith(tuple(f"stages.{room}." for room in ROOMS)) and not shared


def imported(path: Path) -> set[str]:
    """Every module a file imports, wherever in the file."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports hide where they point"
            names.add(node.module or "")
    return names


def files(package: str) -> list[Path]:
    found = sorted((ROOT / package).rglob("*.py"))
    assert found, f"{package} holds no Python files"
    return found


@pytest.mark.parametrize("package", ORDER)
def test_imports_point_one_way(package: str) -> None:
    later = ORDER[ORDER.index(package) + 1 :]
    for path in files(package):
        wrong = {name for name in imported(path) if name.split(".")[0] in later}
        assert not wrong, f"{path.relative_to(ROOT)} imports {sorted(wrong)}"


def test_stages_import_no_ray() -> None:
    for path in files("stages"):
        assert not {name for name in imported(path) if name.split(".")[0] == "ray"}, path


def test_methods_never_import_each_other() -> None:
    for path in files("stages"):
        parts = path.relative_to(ROOT / "stages").parts
        if parts[0] not in ROOMS or parts[0] == "train":
            continue
        mine = f"stages.{parts[0]}.{parts[1].removesuffix('.py')}"
        assert not {name for name in imported(path) if is_method(name) and not name.startswith(mine)}, path


def test_the_engine_names_no_method() -> None:
    for path in files("pipeline"):
        if path.relative_to(ROOT / "pipeline").parts[0] in (
            "demo",
            "trials",
            "training",
            "train.py",
            "proof.py",
            "proxy.py",
        ):
            continue
        wrong = {name for name in imported(path) if is_method(name)}
        assert not wrong, f"{path.relative_to(ROOT)} imports {sorted(wrong)}"


def test_resolving_a_recipe_loads_nothing_heavy() -> None:
    heavy = ("torch", "ray", "transformers", "open_clip", "scipy", "faiss", "ot", "pandas", "matplotlib")
    code = (
        "import sys, pipeline.estimate, pipeline.resolve\n"
        "from stages.kinds import kinds\n"
        "from stages.stage import Stage\n"
        f"kinds(Stage); print([name for name in {heavy} if name in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert ran.stdout.strip() == "[]"

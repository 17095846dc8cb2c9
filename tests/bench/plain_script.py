"""Runs a bench as a plain script, as on a machine with nothing installed but what its docstring says it needs."""

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, packages_distributions, requires
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

BENCH = Path(__file__).resolve().parents[2] / "bench"
# Does not find what is missing, then runs the script as it is called by hand.
PLAIN = """
import runpy, sys
from importlib.machinery import PathFinder
class Without(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.split(".")[0] in MISSING else PathFinder.find_spec(name, path, target)
MISSING, sys.argv = set(sys.argv[1].split()), sys.argv[2:]
sys.meta_path = [Without if finder is PathFinder else finder for finder in sys.meta_path]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def named(script: str) -> list[str]:
    """The distributions that a bench's docstring says it needs."""
    text = ast.get_docstring(ast.parse((BENCH / script).read_text())) or ""
    needs = re.search(r"it needs (.+?),\s+and\s+starts\s+no Ray", text, re.S)
    assert needs is not None, f"{script} does not say what it needs"
    return re.split(r",\s+|\s+and\s+", needs[1])


def installed_with(names: Iterable[str]) -> set[str]:
    """These distributions and all that they require here, extras left out."""
    found: set[str] = set()
    rest = list(names)
    while rest:
        name = canonicalize_name(rest.pop())
        if name in found:
            continue
        try:
            wanted = map(Requirement, requires(name) or ())
        except PackageNotFoundError:  # of a requirement that another one stands in for
            continue
        found.add(name)
        rest += [each.name for each in wanted if each.marker is None or each.marker.evaluate({"extra": ""})]
    return found


def missing(names: Iterable[str]) -> set[str]:
    """Top-level modules of all that is installed here and would not be where only these distributions are."""
    kept = {*installed_with(names), "cuvee"}  # our own, which the script finds beside itself
    owners = packages_distributions().items()
    return {module for module, owned_by in owners if kept.isdisjoint(map(canonicalize_name, owned_by))}


def printed_table(script: str, arguments: list[str], folder: Path) -> list[dict[str, str]]:
    """The rows of the table that a bench prints, by column, where it can import only what it says it needs."""
    command = [sys.executable, "-c", PLAIN, " ".join(missing(named(script))), str(BENCH / script), *arguments]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, env=environment, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    head, _, *rows = [line.strip("| ").split(" | ") for line in done.stdout.splitlines() if line.startswith("|")]
    return [dict(zip(head, row, strict=True)) for row in rows]

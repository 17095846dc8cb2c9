"""Runs a bench as a plain script, as on a machine where little more than torch is installed."""

import os
import subprocess
import sys
from pathlib import Path

BENCH = Path(__file__).resolve().parents[2] / "bench"
# Refuses to import what is missing, then runs the script as it is called by hand.
PLAIN = """
import runpy, sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in MISSING:
            raise ModuleNotFoundError(f"{name} is not installed on this machine", name=name)
MISSING, sys.argv = sys.argv[1].split(), sys.argv[2:]
sys.meta_path.insert(0, Refuse())
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def printed_table(script: str, arguments: list[str], missing: str, folder: Path) -> list[dict[str, str]]:
    """The rows of the table that a bench prints, by column; `missing` names packages that cannot be imported."""
    command = [sys.executable, "-c", PLAIN, missing, str(BENCH / script), *arguments]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, env=environment, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    head, _, *rows = [line.strip("| ").split(" | ") for line in done.stdout.splitlines() if line.startswith("|")]
    return [dict(zip(head, row, strict=True)) for row in rows]

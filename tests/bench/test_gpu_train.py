"""The GPU measurement of training runs to its end in small on a CPU, and counts FLOPs as it says."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from bench.gpu_train import CASES, Measured, Models, Training, verdicts
from stages.train.layout import lay_out

SCRIPT = Path(__file__).resolve().parents[2] / "bench" / "gpu_train.py"
MISSING = "ray polars faiss ot webdataset py3langid lightgbm"
# Refuses to import these, then runs the script as it is called by hand.
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


def test_it_runs_as_a_plain_script_and_prints_a_row_a_case(tmp_path: Path) -> None:
    names = ["7b-di8", "7b-k4", "0.5b-64-packed"]
    small = ["--device", "cpu", "--tiny", "--steps", "1", "--warmup", "1", "--workers", "1", "--peak-tflops", "0.1"]
    cases = [part for name in names for part in ("--case", name)]
    command = [sys.executable, "-c", PLAIN, MISSING, str(SCRIPT), *small, *cases]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    head, _, *rows = [line.strip("| ").split(" | ") for line in done.stdout.splitlines() if line.startswith("|")]
    assert [row[0] for row in rows] == names
    for row in rows:
        found = dict(zip(head, row, strict=True))
        assert float(found["captions/s"]) > 0 and float(found["TFLOP/s (4N)"]) > 0
        assert 0 <= float(found["waiting"].rstrip("%")) <= 100
        assert float(found["places filled"].rstrip("%")) > 90


def test_flops_are_those_of_the_shapes() -> None:
    """On tensors without memory."""
    training = Training(Models.made("7b", "meta", "bf16"), CASES["7b"])

    def per_caption(name: str, captions: int) -> float:
        training.case = case = replace(CASES[name], captions=captions)
        layout = lay_out(training.said(), case.visual, pack=case.pack, share=case.share)
        return training.flops(layout) / captions / 1e12

    plain = per_caption("7b", 4)
    layers = 32 * (4 * 4096**2 + 3 * 4096 * 11_008 + 2 * 4096)
    connector = 1024 * 4096 + 4096 + 4096 * 4096 + 4096
    tower = 24 * (12 * 1024**2 + 13 * 1024)
    by_hand = 4 * layers * 616 + 4 * 4096 * 32_000 * 40 + 2 * tower * 577 + 6 * connector * 576
    assert plain == pytest.approx(by_hand / 1e12, rel=1e-9)
    assert plain / per_caption("7b-di8", 4) == pytest.approx(1.31, abs=0.02)
    assert per_caption("7b-k4-apart", 8) / per_caption("7b-k4", 8) == pytest.approx(3.35, abs=0.15)


def test_bars_are_looked_at_where_their_cases_ran() -> None:
    def at(captions: float, waiting: float = 0.0) -> Measured:
        return Measured(captions, 0, 0, waiting, 1, 0)

    told = list(verdicts({"7b": at(28.0), "7b-di8": at(30.0), "0.5b": at(100.0, 0.2)}))
    assert told[:3] == [
        "7b: captions/s: 28.00, asked for 27.0: met",
        "0.5b: captions/s: 100.00, asked for 200.0: MISSED",
        "7b-di8 over 7b: 1.07, asked for 1.2: MISSED",
    ]
    assert len(told) == 4 and "waits 20.0% of the time" in told[3]
    assert list(verdicts({"7b-k4": at(1.0)})) == []

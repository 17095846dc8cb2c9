"""What stands on stdout is the answer and nothing else."""

import json
import sys
from io import StringIO
from types import SimpleNamespace

from rich.console import Console

from pipeline import cli
from pipeline.summary import _training


def test_what_others_print_meanwhile_stays_out_of_the_answer(capsys) -> None:
    def work(progress):
        print("(raylet) Task failed. There are 3 retries remaining.")
        return {"samples": 1}

    cli._answer(cli._with_progress(work), True, "")
    out, err = capsys.readouterr()
    assert json.loads(out) == {"samples": 1}
    assert "(raylet)" in err
    assert sys.stdout is not sys.stderr


def test_a_difference_of_one_seed_has_no_interval_and_is_told() -> None:
    line = {"metric": "nll_per_token", "left": "curated", "right": "raw", "per_seed": [-0.5], "mean": -0.5}
    rows = [{**line, "low": None, "high": None}, {**line, "low": -0.6, "high": -0.4}]
    outcome = SimpleNamespace(record={"training": {"differences": rows}})
    console = Console(width=120, record=True, file=StringIO())
    console.print(_training(outcome))  # type: ignore[arg-type]
    text = console.export_text()
    assert "-0.5000     one seed" in text and "[-0.6000, -0.4000]" in text

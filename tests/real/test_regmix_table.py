"""RegMix's published runs as a user would bring them: joined as the README says, mended, mixed."""

import re
from pathlib import Path

import pytest

from stages.mixture.pilot_trials import PilotTrials
from stages.mixture.trials_table import TrialsTable, read_trials
from tests.stages.mixture.pilot_trials.runs import evidence

ROOT = Path(__file__).resolve().parents[2]
RUNS = ROOT / "../shared/data/mixture"
if not RUNS.is_dir():
    pytest.skip(f"needs RegMix's runs in {RUNS}", allow_module_level=True)


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> TrialsTable:
    """By the code that stands in the README."""
    code = re.search(r"```python\n(import polars as pl\n\nshares = .*?)```", (ROOT / "README.md").read_text(), re.S)
    assert code is not None
    folder = tmp_path_factory.mktemp("regmix")
    places = {
        "train_mixture_1m.csv": "regmix_train_mixture_1m.csv",
        "train_pile_loss_1m.csv": "regmix_train_pile_loss_1m.csv",
    }
    text = code[1].replace('"runs.csv"', repr(str(folder / "runs.csv")))
    for named, real in places.items():
        text = text.replace(f'"{named}"', repr(str(RUNS / real)))
    exec(compile(text, "README.md", "exec"), {})
    return read_trials(folder / "runs.csv")


def test_the_published_files_are_read_with_their_rounding(table: TrialsTable) -> None:
    assert len(table.trials) == 512 and len(table.sources) == 17 and len(table.metrics) == 13
    assert table.notes == ("runs.csv: shares of 303 runs were rounded (sums 0.996 to 1.003) and normalised to 1",)
    assert abs(table.shares.sum(axis=1) - 1).max() < 1e-12


def test_what_lowers_the_loss_on_web_pages_is_found(table: TrialsTable) -> None:
    known = evidence(table, samples=500)  # a hundred rows a source, four times at most: 0.8
    settings = {"trials": "runs.csv", "bootstrap": 20}
    one = PilotTrials(**settings, predictor="log_linear", metrics={"nll.pile_cc": 1}).mix(known)
    assert one.weights["pile_cc"] > 0.9 and one.capped["pile_cc"] == pytest.approx(0.8)
    assert one.binding == ("max_repeats: pile_cc",) and one.evidence["marginal"]["pile_cc"] < 0
    every = PilotTrials(**settings, predictor="linear", prior_strength=1.0).mix(known)
    assert len(every.evidence["metrics"]) == 13 and min(every.weights.values()) > 0
    assert every.objective < every.references["uniform"]
    assert "the optimum" in every.evidence["facts"]["certificate"]

"""The GPU measurement of training runs to its end in small on a CPU, and counts FLOPs as it says."""

from dataclasses import replace
from pathlib import Path

import pytest

from bench.gpu_train import CASES, Measured, Models, Training, verdicts
from stages.train.layout import lay_out
from tests.bench.plain_script import printed_table


def test_it_runs_as_a_plain_script_and_prints_a_row_a_case(tmp_path: Path) -> None:
    names = ["7b-di8", "7b-k4", "0.5b-64-packed"]
    small = ["--device", "cpu", "--tiny", "--steps", "1", "--warmup", "1", "--workers", "1", "--peak-tflops", "0.1"]
    cases = [part for name in names for part in ("--case", name)]
    rows = printed_table("gpu_train.py", [*small, *cases], tmp_path)
    assert [row["case"] for row in rows] == names
    for found in rows:
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

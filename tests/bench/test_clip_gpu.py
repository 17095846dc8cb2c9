"""The GPU measurement runs to its end where only what it names is installed, in small on a CPU."""

import re
from pathlib import Path

from tests.bench.plain_script import missing, named, printed_table


def test_only_what_it_names_and_what_that_requires_can_be_imported() -> None:
    needs = named("clip_gpu.py")
    assert {"torch", "open_clip_torch", "zstandard"} <= set(needs)
    hidden, more = missing(needs), missing([name for name in needs if name != "orjson"])
    assert {"ray", "polars", "transformers", "pandas", "simplejpeg", "hypothesis"} <= hidden
    assert hidden.isdisjoint({"torch", "numpy", "PIL", "timm", "yaml", "stages"}) and more - hidden == {"orjson"}


def test_it_runs_as_a_plain_script_and_prints_its_numbers(tmp_path: Path) -> None:
    small = ["--device", "cpu", "--model", "tiny", "--dtype", "fp32", "--pairs", "24", "--side", "64"]
    small += ["--rounds", "1", "--peak-tflops", "0.5"]
    (found,) = printed_table("clip_gpu.py", small, tmp_path)
    whole, alone = float(found["end to end pairs/s"]), float(found["model alone pairs/s"])
    assert 0 < whole < 2 * alone and float(found["decode alone images/s"]) > 0
    # What a pair costs is a matter of shapes: two layers of 64 for 17 patches and for 8 to 24 tokens.
    assert 0.001 < float(found["GFLOP a pair"]) < 0.1
    (other,) = printed_table("clip_gpu.py", [*small, "--dtype", "bf16"], tmp_path)
    assert other["GFLOP a pair"] == found["GFLOP a pair"]
    assert re.fullmatch(r"\d+\.\d%", found["MFU"]) and found["bits independent of neighbours"] == "yes"

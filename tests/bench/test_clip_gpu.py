"""The GPU measurement runs to its end where little more than torch and open_clip is installed, in small on a CPU."""

import re
from pathlib import Path

from tests.bench.plain_script import printed_table

MISSING = "ray polars faiss transformers scipy ot webdataset simplejpeg py3langid aiohttp typer rich"


def test_it_runs_as_a_plain_script_and_prints_its_numbers(tmp_path: Path) -> None:
    small = ["--device", "cpu", "--model", "tiny", "--dtype", "fp32", "--pairs", "24", "--side", "64"]
    small += ["--rounds", "1", "--peak-tflops", "0.5"]
    (found,) = printed_table("clip_gpu.py", small, MISSING, tmp_path)
    whole, alone = float(found["end to end pairs/s"]), float(found["model alone pairs/s"])
    assert 0 < whole < 2 * alone and float(found["decode alone images/s"]) > 0
    # What a pair costs is a matter of shapes: two layers of 64 for 17 patches and for 8 to 24 tokens.
    assert 0.001 < float(found["GFLOP a pair"]) < 0.1
    (other,) = printed_table("clip_gpu.py", [*small, "--dtype", "bf16"], MISSING, tmp_path)
    assert other["GFLOP a pair"] == found["GFLOP a pair"]
    assert re.fullmatch(r"\d+\.\d%", found["MFU"]) and found["bits independent of neighbours"] == "yes"

"""The GPU measurement runs to its end where little more than torch and open_clip is installed, in small on a CPU."""

import os
import re
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).resolve().parents[2] / "bench" / "clip_gpu.py"
MISSING = "ray polars faiss transformers scipy ot webdataset simplejpeg py3langid aiohttp typer rich"
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


def test_it_runs_as_a_plain_script_and_prints_its_numbers(tmp_path: Path) -> None:
    small = ["--device", "cpu", "--model", "tiny", "--dtype", "fp32", "--pairs", "24", "--side", "64"]
    command = [sys.executable, "-c", PLAIN, MISSING, str(SCRIPT), *small, "--rounds", "1", "--peak-tflops", "0.5"]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    head, _, row = [line.strip("| ").split(" | ") for line in done.stdout.splitlines() if line.startswith("|")]
    found = dict(zip(head, row, strict=True))
    whole, alone = float(found["end to end pairs/s"]), float(found["model alone pairs/s"])
    assert 0 < whole < 2 * alone and float(found["decode alone images/s"]) > 0
    # What a pair costs is a matter of shapes: two layers of 64 for 17 patches and for 8 to 24 tokens.
    assert 0.001 < float(found["GFLOP a pair"]) < 0.1
    assert re.fullmatch(r"\d+\.\d%", found["MFU"]) and found["bits independent of neighbours"] == "yes"

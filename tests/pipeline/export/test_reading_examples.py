"""The README's examples of reading an export, run as they stand there."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.pipeline.export.conftest import READERS, ROOT

EXAMPLES = {
    "webdataset": sys.executable,
    "parquet": sys.executable,
    "huggingface": sys.executable,
    "mds": str(READERS),
    "energon": str(READERS),
}


def example(title: str) -> str:
    found = re.search(rf"```python\n# {title}\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    assert found is not None, f"the README has no example {title!r}"
    return found[1]


@pytest.mark.parametrize("kind", EXAMPLES)
def test_an_example_prints_every_sample(exported: Callable[..., Path], tmp_path: Path, kind: str) -> None:
    python = EXAMPLES[kind]
    if not Path(python).exists():
        pytest.skip("the other readers are not installed: `make readers` installs them")
    home = exported(kind).parents[2]
    code = example(kind).replace("work/export/photos", f"work/export/{kind}")
    assert f"work/export/{kind}" in code
    here = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path), "PYTHONUTF8": "1"}
    ran = subprocess.run([python, "-W", "ignore", "-c", code], cwd=home, env=here, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr[-3000:]
    assert sum("une image n°" in line for line in ran.stdout.splitlines()) == 70


def test_ray_datas_example(
    exported: Callable[..., Path],
    ray_cluster: object,
    capsys: pytest.CaptureFixture[str],
) -> None:
    code = example("Ray Data, from webdataset").replace("work/export/photos", str(exported("webdataset")))
    exec(compile(code, "README.md", "exec"), {})
    assert sum("une image n°" in line for line in capsys.readouterr().out.splitlines()) == 70

"""The jobs as a cluster's user runs them: submitted with the repository as working directory."""

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
RAY = str(Path(sys.executable).with_name("ray"))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def dashboard() -> Iterator[str]:
    """A Ray head of its own, with the job server."""
    port, environment = free_port(), {**os.environ, "RAY_AUTH_MODE": "disabled"}
    ports = ["--port", str(free_port()), "--dashboard-port", str(port)]
    head = [RAY, "start", "--head", "--block", "--num-cpus", "2", *ports, "--disable-usage-stats"]
    process = subprocess.Popen(head, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert process.stdout is not None
    for line in process.stdout:
        if "Ray runtime started" in line:
            break
    yield f"http://127.0.0.1:{port}"
    process.terminate()
    process.wait()


@pytest.mark.slow
def test_a_submitted_job_curates_a_pool(make_pool: Callable[..., Path], dashboard: str) -> None:
    recipe = make_pool(extra="export: {kind: webdataset, samples: 10}\n")
    entry = [sys.executable, "-m", "jobs.curate", str(recipe)]
    submit = [RAY, "job", "submit", "--address", dashboard, "--working-dir", ".", "--", *entry]
    ran = subprocess.run(
        submit, cwd=ROOT, capture_output=True, text=True, env={**os.environ, "RAY_AUTH_MODE": "disabled"}
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert (recipe.parent / "work" / "export" / "small" / "00000.tar").exists()

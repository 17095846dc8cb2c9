"""One run at a time: the second is told who holds the workspace; what the dead left is taken over."""

import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline.lock import STALE_SECONDS, Holder, holding, refuse_if_over
from schemas.errors import CuveeError

HOLD = """
import sys, time
from pathlib import Path
from pipeline.lock import holding
with holding(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def left_by(root: Path, host: str, silent_seconds: float) -> None:
    (root / ".lock").write_text(json.dumps({"host": host, "process": 4711}))
    then = time.time() - silent_seconds
    os.utime(root / ".lock", (then, then))


def test_the_second_run_learns_who_holds_it(tmp_path: Path) -> None:
    first = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert first.stdout is not None and first.stdout.readline() == "held\n"
    try:
        with pytest.raises(CuveeError, match=f"in use by process {first.pid} on {platform.node()}"), holding(tmp_path):
            pass
    finally:
        first.kill()
        first.communicate()
    with holding(tmp_path) as held:
        assert held.left is not None and (held.left.host, held.left.process) == (platform.node(), first.pid)
    assert not list(tmp_path.iterdir())


def test_a_live_holder_on_another_host_is_respected(tmp_path: Path) -> None:
    left_by(tmp_path, "elsewhere", STALE_SECONDS / 3)
    with pytest.raises(CuveeError, match="process 4711 on elsewhere, last heard of"), holding(tmp_path):
        pass
    assert json.loads((tmp_path / ".lock").read_text())["host"] == "elsewhere"


def test_who_was_refused_holds_nothing_back(tmp_path: Path) -> None:
    left_by(tmp_path, "elsewhere", STALE_SECONDS / 3)
    with pytest.raises(CuveeError) as refused, holding(tmp_path):
        pass
    left_by(tmp_path, "elsewhere", STALE_SECONDS + 30)
    with holding(tmp_path):  # while the refusal, and with it what it had open, is still remembered
        assert refused.traceback


def test_a_dead_host_holds_nothing(tmp_path: Path) -> None:
    left_by(tmp_path, "elsewhere", STALE_SECONDS + 30)
    with holding(tmp_path) as held:
        assert held.left == Holder("elsewhere", 4711)
        assert json.loads((tmp_path / ".lock").read_text())["process"] == os.getpid()


def test_a_lock_file_of_garbage_is_nobodys(tmp_path: Path) -> None:
    (tmp_path / ".lock").write_bytes(b"\xff\0 not json")
    with holding(tmp_path) as held:
        assert held.left is None


def test_a_failed_run_gives_the_workspace_back(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), holding(tmp_path):
        raise ZeroDivisionError
    assert not list(tmp_path.iterdir())


def test_the_holder_says_that_it_lives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.lock.BEAT_SECONDS", 0.01)
    with holding(tmp_path):
        os.utime(tmp_path / ".lock", (1, 1))
        while os.stat(tmp_path / ".lock").st_mtime == 1:
            time.sleep(0.005)


def test_a_place_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CuveeError, match="cannot be written"), holding(tmp_path / "file" / "work"):
        pass


def test_a_worker_that_outlives_its_run_is_told(tmp_path: Path) -> None:
    with holding(tmp_path) as held:
        refuse_if_over(tmp_path, held.run)
    with pytest.raises(CuveeError, match="does not hold"):
        refuse_if_over(tmp_path, held.run)
    with holding(tmp_path), pytest.raises(CuveeError, match="does not hold"):
        refuse_if_over(tmp_path, held.run)

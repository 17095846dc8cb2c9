"""The memory meter against known amounts: allocated, in a daemon that detached, in shared memory mapped or not."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

METER = Path(__file__).resolve().parents[2] / "bench" / "memory.py"

# Starts the program given, waits for its word, then looks once: no timing decides what is seen.
LOOK = """
import subprocess, sys, time
sys.path.insert(0, sys.argv[1])
import memory
memory.adopt_orphans()
with subprocess.Popen([sys.executable, "-c", sys.argv[2]], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
    child.stdout.readline()
    sample = memory.measured(memory.Tree(), time.monotonic())
    print(sample.total, sample.unseen, len(sample.processes))
"""
WAIT = "print('ready', flush=True); sys.stdin.read()"
IDLE = f"import os, sys; {WAIT}"
BLOCK = f"import os, sys; block = bytearray(b'x') * 200_000_000; {WAIT}"
# Double fork with a session of its own; the one in between is gone, and so is the first, but for its standard input.
DAEMON = f"""
import os, sys
if os.fork() == 0:
    os.setsid()
    if os.fork():
        os._exit(0)
    block = bytearray(b'x') * 200_000_000
    {WAIT}
    os._exit(0)
os.wait()
sys.stdin.read()
"""
# The plasma store's way: a file without a name, filled by somebody who is gone, held open by one who never touches it.
STORE = f"""
import mmap, os, sys
handle = os.memfd_create("store")
os.ftruncate(handle, 1_000_000_000)
if os.fork() == 0:
    mapped = mmap.mmap(handle, 1_000_000_000)
    for _ in range(200):
        mapped.write(b"x" * 1_000_000)
    os._exit(0)
os.wait()
TOUCH
{WAIT}
"""
TOUCH = "mapped = mmap.mmap(handle, 200_000_000); seen = sum(mapped[place] for place in range(0, 200_000_000, 4096))"

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="PSS is Linux's")


def look(program: str) -> tuple[float, float, int]:
    """Total and unseen shared megabytes above those of an idle interpreter, and the number of processes."""
    command = [sys.executable, "-c", LOOK, str(METER.parent)]
    idle, full = (
        subprocess.run([*command, text], capture_output=True, text=True, check=True, timeout=60).stdout.split()
        for text in (IDLE, program)
    )
    return (int(full[0]) - int(idle[0])) / 1e6, int(full[1]) / 1e6, int(full[2])


def test_allocated_memory_is_seen_within_ten_percent() -> None:
    total, unseen, processes = look(BLOCK)
    assert total == pytest.approx(200, rel=0.1)
    assert (unseen, processes) == (0, 1)


def test_a_daemon_that_detached_is_counted() -> None:
    total, _, processes = look(DAEMON)
    assert total == pytest.approx(200, rel=0.1)
    assert processes == 2


def test_shared_memory_that_nobody_maps_is_counted() -> None:
    total, unseen, _ = look(STORE.replace("TOUCH", ""))
    assert total == pytest.approx(200, rel=0.1)
    assert unseen == pytest.approx(200, rel=0.01)


def test_shared_memory_that_somebody_maps_is_counted_once() -> None:
    total, unseen, _ = look(STORE.replace("TOUCH", TOUCH))
    assert total == pytest.approx(200, rel=0.1)
    assert unseen == pytest.approx(0, abs=1)


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(METER), "--json", "--", *command], capture_output=True, text=True, timeout=60
    )


def test_a_command_keeps_its_output_and_exit_code() -> None:
    done = run(sys.executable, "-c", "print('mine'); raise SystemExit(7)")
    mine, answer = done.stdout.splitlines()
    assert (mine, done.returncode) == ("mine", 7)
    facts = json.loads(answer)
    assert facts["exit_code"] == 7
    assert 0 < facts["peak_bytes"] <= facts["at_most_bytes"]
    assert facts["samples"] >= 1
    assert "peak memory" in done.stderr


def test_a_killed_command_and_an_unknown_one_are_told_apart() -> None:
    assert run(sys.executable, "-c", "import os; os.kill(os.getpid(), 9)").returncode == 137
    unknown = run("no-such-command-here")
    assert unknown.returncode == 2
    assert "no-such-command-here" in unknown.stderr

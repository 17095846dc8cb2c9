"""Peak memory of a command and of everything it starts: `python bench/memory.py [--json] -- COMMAND [ARGS...]`.

Every 0.2 s it adds up, over the whole process tree, the proportional set size (PSS) the kernel reports, in which a page
that n processes map counts as 1/n in each, and the shared memory in use that PSS does not see.

- The tree: this process makes itself the reaper of orphans (PR_SET_CHILD_SUBREAPER), so that a daemon that detaches,
  by setsid, a double fork or both, stays its descendant: Ray's gcs_server, raylet and workers are all found. A cluster
  that ran before is nobody's child here and is not counted.
- Shared memory: Ray's object store is a file in /dev/shm that the raylet holds open. A page of it counts in the PSS of
  those who have touched it and in nobody's once they are gone, though it is still in use. What is in use is what the
  kernel has given the file, from its open descriptors and once per file; of that, only what exceeds the tree's summed
  `Pss_Shmem` is added, so that nothing counts twice. Shared memory without a file or descriptor hides as many bytes of
  the excess as it has itself; `at_most_bytes` (PSS plus all of the files) bounds that from above.

A peak shorter than the interval can be missed; `longest_gap_s` says how far apart samples lay. Linux only.
"""

import argparse
import ctypes
import json
import os
import select
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PR_SET_CHILD_SUBREAPER = 36
SHARED_FILES = ("/dev/shm/", "/memfd:")
BLOCK_BYTES = 512
TOP = 8


@dataclass(frozen=True)
class Process:
    """One process of the tree at one moment, in bytes."""

    pid: int
    name: str
    pss: int
    shmem: int
    """The part of `pss` that is shared memory."""
    swapped: int


@dataclass(frozen=True)
class Sample:
    """The whole tree at one moment."""

    at_s: float
    processes: list[Process] = field(default_factory=list)
    shared: int = 0
    """Bytes the kernel has given the shared-memory files that the tree holds open."""
    unreadable: int = 0
    """Processes that another user owns."""

    @property
    def pss(self) -> int:
        return sum(process.pss for process in self.processes)

    @property
    def unseen(self) -> int:
        """Shared memory in use that no process's PSS holds."""
        return max(0, self.shared - sum(process.shmem for process in self.processes))

    @property
    def total(self) -> int:
        return self.pss + self.unseen


class Tree:
    """All descendants of this process, itself left out."""

    def __init__(self) -> None:
        self._known: dict[int, str] = {}
        """pid -> start time, as of the last look; a reused pid has another start time."""

    def pids(self) -> list[int]:
        """Who is there now."""
        listed = dict(_listed())
        children: dict[int, list[int]] = {}
        for pid, (parent, _) in listed.items():
            children.setdefault(parent, []).append(pid)
        # A parent may have died while /proc was read: whoever was known a moment ago vouches for its children.
        pending = [os.getpid(), *(pid for pid, start in self._known.items() if _same(listed, pid, start))]
        found: set[int] = set()
        while pending:
            pid = pending.pop()
            pending.extend(child for child in children.get(pid, []) if child not in found)
            found.add(pid)
        self._known = {pid: listed[pid][1] for pid in sorted(found - {os.getpid()}) if pid in listed}
        return list(self._known)


def _same(listed: dict[int, tuple[int, str]], pid: int, start: str) -> bool:
    return pid not in listed or listed[pid][1] == start


def _listed() -> Iterator[tuple[int, tuple[int, str]]]:
    """(pid, (parent, start time)) of every process."""
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            facts = Path("/proc", name, "stat").read_text(errors="replace").rpartition(")")[2].split()
        except OSError:  # gone in the meantime
            continue
        yield int(name), (int(facts[1]), facts[19])


def measured(tree: Tree, began: float) -> Sample:
    """One look at the tree."""
    processes: list[Process] = []
    files: dict[tuple[int, int], int] = {}
    unreadable = 0
    for pid in tree.pids():
        try:
            processes.append(_process(pid))
            files |= _shared_files(pid)
        except PermissionError:
            unreadable += 1
        except OSError:  # gone in the meantime, or a zombie
            continue
    return Sample(time.monotonic() - began, processes, sum(files.values()), unreadable)


def _process(pid: int) -> Process:
    fields = (line.split() for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:])
    sizes = {parts[0]: int(parts[1]) * 1024 for parts in fields}
    line = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    shmem, swapped = sizes.get("Pss_Shmem:", 0), sizes.get("SwapPss:", 0)
    return Process(pid, line or "(kernel gave no name)", sizes.get("Pss:", 0), shmem, swapped)


def _shared_files(pid: int) -> dict[tuple[int, int], int]:
    """(device, inode) -> bytes in memory, of every shared-memory file the process holds open."""
    found = {}
    for entry in os.scandir(f"/proc/{pid}/fd"):
        try:
            if os.readlink(entry.path).startswith(SHARED_FILES):
                facts = os.stat(entry.path)
                found[facts.st_dev, facts.st_ino] = facts.st_blocks * BLOCK_BYTES
        except FileNotFoundError:  # closed in the meantime
            continue
    return found


def adopt_orphans() -> None:
    """Make this process the parent of every descendant whose own parent ends; without it init would be."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def watch(command: list[str], interval: float = 0.2) -> dict[str, Any]:
    """Run the command to its end and say what it took at most.

    Raises:
        FileNotFoundError: no such command.
    """
    adopt_orphans()
    began = time.monotonic()
    child = os.posix_spawnp(command[0], command, os.environ, setsigdef=[signal.SIGINT, signal.SIGTERM])
    # Ctrl-C reaches the command from the terminal; a stop sent to us is passed on; we stay to tell the result.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: os.kill(child, signal.SIGTERM))
    tree, peak, samples, gap, last, status = Tree(), Sample(0.0), 0, 0.0, 0.0, None
    ended = os.pidfd_open(child)
    while status is None:
        sample = measured(tree, began)
        peak = max(peak, sample, key=lambda one: one.total)
        samples, gap, last = samples + 1, max(gap, sample.at_s - last), sample.at_s
        select.select([ended], [], [], max(0.0, samples * interval - (time.monotonic() - began)))
        status = _reaped(child)
    facts = {"command": command, "exit_code": os.waitstatus_to_exitcode(status)}
    facts |= {"wall_s": time.monotonic() - began, "samples": samples, "longest_gap_s": gap}
    return facts | _described(peak)


def _reaped(child: int) -> int | None:
    """Bury the dead, adopted ones included; the command's own status once it has ended."""
    status = None
    while True:
        try:
            pid, ending = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return status
        if pid == 0:
            return status
        status = ending if pid == child else status


def _described(peak: Sample) -> dict[str, Any]:
    top = sorted(peak.processes, key=lambda process: -process.pss)[:TOP]
    return {
        "peak_bytes": peak.total,
        "peak_at_s": peak.at_s,
        "pss_bytes": peak.pss,
        "unseen_shared_bytes": peak.unseen,
        "at_most_bytes": peak.pss + peak.shared,
        "swapped_bytes": sum(process.swapped for process in peak.processes),
        "processes": len(peak.processes),
        "unreadable_processes": peak.unreadable,
        "top": [{"pid": one.pid, "name": one.name[:160], "pss_bytes": one.pss} for one in top],
    }


def text(facts: dict[str, Any]) -> str:
    """The result for people."""
    lines = [
        f"peak memory {facts['peak_bytes'] / 1e6:.0f} MB, {facts['peak_at_s']:.1f} s after the start of "
        f"{facts['wall_s']:.1f} s: {facts['pss_bytes'] / 1e6:.0f} MB PSS of {facts['processes']} processes "
        f"and {facts['unseen_shared_bytes'] / 1e6:.0f} MB of shared memory outside it"
    ]
    lines += [f"  {one['pss_bytes'] / 1e6:7.0f} MB  {one['pid']:>7}  {one['name'][:80]}" for one in facts["top"]]
    if facts["swapped_bytes"]:
        lines.append(f"  {facts['swapped_bytes'] / 1e6:.0f} MB more were swapped out and are not in the sum")
    if facts["unreadable_processes"]:
        lines.append(f"  {facts['unreadable_processes']} processes of another user are not in the sum")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description="Peak memory of a command and of everything it starts.")
    parser.add_argument("--json", action="store_true", help="also print one JSON object, stdout's last line")
    parser.add_argument("--interval", type=float, default=0.2, help="seconds between samples (default: 0.2)")
    parser.add_argument("command", nargs="+", help="after `--`: the command and its arguments")
    given = parser.parse_args()
    if sys.platform != "linux" or not Path("/proc/self/smaps_rollup").exists():
        parser.error(f"needs Linux 4.14 or newer with /proc/PID/smaps_rollup; found {sys.platform}")
    try:
        facts = watch(given.command, given.interval)
    except FileNotFoundError:
        parser.error(f"found no command {given.command[0]!r}; name a program or a path")
    print(text(facts), file=sys.stderr)
    if given.json:
        print(json.dumps(facts), flush=True)
    code = facts["exit_code"]
    sys.exit(128 - code if code < 0 else code)


if __name__ == "__main__":
    main()

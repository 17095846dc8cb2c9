"""One run at a time on a workspace, on one machine or several that share its file system."""

import fcntl
import json
import os
import platform
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

from schemas.errors import CuveeError

BEAT_SECONDS = 5.0
"""How often a holder says that it lives."""
STALE_SECONDS = 60.0
"""Silence after which a holder on another host is taken for dead."""


@dataclass(frozen=True)
class Holder:
    """Who holds a workspace."""

    host: str
    process: int
    run: str = ""
    """A name that no two runs share, by which a worker tells that its own is over."""

    @staticmethod
    def here() -> "Holder":
        """This process."""
        return Holder(platform.node(), os.getpid(), uuid.uuid4().hex)

    def __str__(self) -> str:
        return f"process {self.process} on {self.host}"


@dataclass(frozen=True)
class Held:
    """A workspace that is ours."""

    run: str
    """See `Holder`."""
    left: Holder | None
    """Who died holding it before, if anybody did."""


def refuse_if_over(root: Path, run: str) -> None:
    """Stop a worker that outlived its run: killed drivers leave some behind for a moment, and the next run is at work.

    Raises:
        CuveeError: the workspace is not held by this run any more.
    """
    try:
        found = json.loads((root / ".lock").read_text()).get("run")
    except (OSError, ValueError):
        found = None
    if found != run:
        raise CuveeError(f"the run that this worker belongs to does not hold {root} any more")


@contextmanager
def holding(root: Path) -> Iterator["Held"]:
    """Hold the folder `root` until the block ends.

    The kernel's lock (flock) goes with its process, however that ends. Where it does not reach other hosts, as on some
    network file systems, the holder's heartbeat decides: the file's modification time by the file server's clock. Two
    hosts of such a file system that begin within the same instant are not told apart.

    Raises:
        CuveeError: another run holds it, with its host and process; or the folder cannot be written.
    """
    path = root / ".lock"
    try:
        root.mkdir(parents=True, exist_ok=True)
        file = _locked(path)
        try:
            left = _leftover(root, file)
        except BaseException:
            file.close()  # and with it the kernel's lock
            raise
    except OSError as error:
        raise CuveeError(
            f"{root} cannot be written: {error.strerror or error}; a workspace needs a folder that this user may write"
        ) from error
    with file:
        file.seek(0)
        file.truncate()
        holder = Holder.here()
        file.write(json.dumps(asdict(holder)))
        file.flush()
        try:
            with _beating(path):
                yield Held(holder.run, left)
        finally:
            path.unlink(missing_ok=True)


def _locked(path: Path) -> IO[str]:
    """The lock file, locked by the kernel; not one that its holder has just removed."""
    while True:
        file = open(path, "a+")  # noqa: SIM115  it stays open as long as the lock is held
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            with file:
                who = _holder(file) or "a run that is just beginning"
            raise CuveeError(f"{path.parent} is in use by {who}; wait for it or stop it") from error
        with suppress(FileNotFoundError):
            if os.fstat(file.fileno()).st_ino == os.stat(path).st_ino:
                return file
        file.close()


def _holder(file: IO[str]) -> Holder | None:
    file.seek(0)
    try:
        return Holder(**json.loads(file.read()))
    except (ValueError, TypeError):
        return None


def _leftover(root: Path, file: IO[str]) -> Holder | None:
    """Who left this lock behind.

    Raises:
        CuveeError: somebody on another host, who is alive.
    """
    holder = _holder(file)
    if holder is None:
        return None
    silent = _now(root) - os.fstat(file.fileno()).st_mtime
    # On this host the kernel has just answered: the holder is gone.
    if holder.host != platform.node() and silent < STALE_SECONDS:
        raise CuveeError(
            f"{root} is in use by {holder}, last heard of {max(0, round(silent))} s ago; wait for it or stop it. "
            f"If that host is dead, its lock is void {STALE_SECONDS:.0f} s after its last sign of life"
        )
    return holder


def _now(root: Path) -> float:
    """The time by the clock that stamps files in this folder."""
    probe = root / f".writing-{uuid.uuid4().hex[:8]}"
    probe.touch()
    try:
        return probe.stat().st_mtime
    finally:
        probe.unlink(missing_ok=True)


@contextmanager
def _beating(path: Path) -> Iterator[None]:
    over = threading.Event()

    def beat() -> None:
        while not over.wait(BEAT_SECONDS):
            with suppress(OSError):  # a beat that fails is a beat missed
                os.utime(path)

    heart = threading.Thread(target=beat, daemon=True, name="workspace heartbeat")
    heart.start()
    try:
        yield
    finally:
        over.set()
        heart.join()

"""Kill a run again and again: its driver, its workers, its nodes. What comes out must be what comes out undisturbed.

    python bench/kill.py RECIPE --kills 100

Starts a small Ray cluster of its own (a head without CPUs, two nodes of one CPU, as real raylets), runs the recipe once
in peace, then in rounds: each attempt is struck by SIGKILL at a random time, and the same command is given again until
a run ends. Then the workspace is compared and thrown away. Prints one JSON line.
"""

import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]
import yaml

TARGETS = ("driver", "driver", "driver", "worker", "worker", "node")
SLICE_LOG = '''
from typing import Literal
import pyarrow as pa
from schemas.columns import IMAGE_HASH, KEY, column
from stages.stage import Stage

LOGGED = column("logged", pa.int8(), "0; that a slice was computed stands in the log")


class SliceLog(Stage):
    """Writes a line for every slice it is given."""

    kind: Literal["slice_log"] = "slice_log"
    log: str
    reads, writes = (KEY, IMAGE_HASH), (LOGGED,)
    batch_rows = 1 << 20

    def open(self):
        def score(batch):
            with open(self.log, "a") as log:
                log.write(f"{batch['key'][0]} {batch['image_hash'][0]}\\n" if batch.num_rows else "")
            zeros = pa.nulls(batch.num_rows, pa.int8()).fill_null(0)
            return pa.record_batch([zeros, pa.nulls(batch.num_rows, pa.string())], self.returns())

        return score
'''


@dataclass
class Tally:
    """What happened."""

    kills: Counter[str] = field(default_factory=Counter)
    """By what was struck."""
    finished: int = 0
    """Runs that ended by themselves, each compared with the undisturbed one."""
    slices: int = 0
    """In one undisturbed run."""
    again: int = 0
    """Slices that were computed more than once, over all rounds."""
    bound: int = 0
    """One per worker and kill."""


@dataclass
class Ground:
    """Where the killing takes place."""

    cluster: Any
    nodes: list[Any]
    folder: Path
    recipe: Path

    @property
    def workspace(self) -> Path:
        """Thrown away after every round."""
        return self.folder / "work"

    def start(self) -> subprocess.Popen[str]:
        """The command, once."""
        command = [sys.executable, "-m", "pipeline.cli", "run", str(self.recipe), "--address", self.cluster.address]
        return subprocess.Popen(
            command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, cwd=Path(__file__).parents[1]
        )


@contextmanager
def ground(recipe: Path) -> Iterator[Ground]:
    """A cluster, and a copy of the recipe with a workspace of its own and a log of every slice."""
    from ray.cluster_utils import Cluster

    folder = Path(tempfile.mkdtemp(prefix="cuvee-kill-"))
    copy = recipe.with_name(f".{recipe.stem}-{os.getpid()}.yaml")
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    try:
        (folder / "slice_log.py").write_text(SLICE_LOG)
        document = yaml.safe_load(recipe.read_text())
        document["workspace"] = str(folder / "work")
        document["plugins"] = [*document.get("plugins", []), str(folder / "slice_log.py")]
        # First of all stages, so that a slice that dies half-way has been counted.
        document["score"] = [{"kind": "slice_log", "log": str(folder / "slices.log")}, *document.get("score", [])]
        copy.write_text(yaml.safe_dump(document))
        yield Ground(cluster, [cluster.add_node(num_cpus=1) for _ in range(2)], folder, copy)
    finally:
        cluster.shutdown()  # type: ignore[no-untyped-call]
        copy.unlink()
        shutil.rmtree(folder)


def tree(workspace: Path) -> dict[str, str]:
    """Relative path -> SHA-256 of everything the same-bytes promise covers."""
    found = {}
    for part in ("scores", "fits", "selection", "export"):
        for path in sorted((workspace / part).rglob("*")):
            if path.is_file():
                found[path.relative_to(workspace).as_posix()] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def differences(found: dict[str, str], expected: dict[str, str]) -> list[str]:
    """What a run left behind that the undisturbed one did not, or the other way round, or in other bytes."""
    names = sorted(name for name in found.keys() | expected.keys() if found.get(name) != expected.get(name))
    kinds = {True: "missing", False: "other bytes"}
    return [f"{name}: {'new' if name not in expected else kinds[name not in found]}" for name in names]


def leftovers(workspace: Path) -> list[str]:
    """Hidden names: locks, staged slices, files half written."""
    return [str(path.relative_to(workspace)) for path in workspace.rglob(".*")]


def kill_loop(recipe: Path, kills: int, seed: int = 0) -> Tally:
    """Strike `kills` times at random.

    Raises:
        AssertionError: a finished run differs from the undisturbed one, or leaves a temporary file.
    """
    chance, tally = random.Random(seed), Tally()
    with ground(recipe) as place:
        _finish(place.start())
        expected, log = tree(place.workspace), place.folder / "slices.log"
        tally.slices = len(log.read_text().splitlines())
        shutil.rmtree(place.workspace)
        began = time.monotonic()
        _finish(place.start())  # the second one finds everything warm: its time is where to strike
        calm_seconds = time.monotonic() - began
        assert expected and tree(place.workspace) == expected and not leftovers(place.workspace)
        while sum(tally.kills.values()) < kills:
            shutil.rmtree(place.workspace)
            log.write_text("")
            before = sum(tally.kills.values())
            _round(place, tally, kills, chance, calm_seconds)
            struck = sum(tally.kills.values()) - before
            counts = Counter(log.read_text().splitlines())
            tally.again += sum(counts.values()) - len(counts)
            tally.bound += struck * len(place.nodes)
            assert not (found := differences(tree(place.workspace), expected)), found
            assert not leftovers(place.workspace), leftovers(place.workspace)
    return tally


def _round(place: Ground, tally: Tally, kills: int, chance: random.Random, calm_seconds: float) -> None:
    """Give the command until a run ends."""
    while True:
        process = place.start()
        target = chance.choice(TARGETS) if sum(tally.kills.values()) < kills else None
        if target is not None:
            _wait(process, chance.uniform(0, calm_seconds))
            struck = process.poll() is None and _strike(place, process, target)
            tally.kills[target] += struck
        if _finish(process, may_be_killed=target == "driver"):
            tally.finished += 1
            return


def _wait(process: subprocess.Popen[str], seconds: float) -> None:
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        return


def _strike(place: Ground, process: subprocess.Popen[str], target: str) -> bool:
    """Whether there was something to strike."""
    if target == "driver":
        process.kill()
        return True
    if target == "node":
        place.cluster.remove_node(place.nodes.pop(0), allow_graceful=False)
        place.nodes.append(place.cluster.add_node(num_cpus=1))
        return True
    workers = [
        one for one in psutil.process_iter(["cmdline"]) if "ray::_results" in " ".join(one.info["cmdline"] or [])
    ]
    for worker in workers[:1]:
        worker.send_signal(signal.SIGKILL)
    return bool(workers)


def _finish(process: subprocess.Popen[str], *, may_be_killed: bool = False) -> bool:
    """Whether the run ended well; anything but our own kill is a failure."""
    _, errors = process.communicate()
    killed = may_be_killed and process.returncode == -signal.SIGKILL
    assert process.returncode == 0 or killed, errors
    return process.returncode == 0


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    tally = kill_loop(options.recipe.resolve(), options.kills, options.seed)
    print(json.dumps(vars(tally)))


if __name__ == "__main__":
    main()

"""The workspace on disk. A file that exists is complete: written under another name, synced, then renamed."""

import json
import os
import platform
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from schemas.errors import CuveeError
from schemas.tables import POOL
from stages.device import device_kind

LIBRARIES = (
    *("numpy", "pyarrow", "polars", "torch", "torchvision", "open_clip_torch", "pillow"),
    *("faiss-gpu", "scipy", "pot"),
)
# Without dictionaries: most columns differ from row to row, and what repeats zstd finds in less time and room.
FORM: dict[str, Any] = {"compression": "zstd", "use_dictionary": False}


class Workspace:
    """Where everything computed lies; see the file table in the README."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.used_fits: set[str] = set()
        """Addresses asked for by this process: what its run rests on, and what gc keeps for it."""
        self.used_arms: set[str] = set()
        self.held_by: str | None = None
        """Name of the run that holds it; None: nobody watches."""

    @property
    def pool(self) -> Path:
        """One row per input shard ever seen."""
        return self.root / "pool.parquet"

    def sidecar(self, address: str, digest: str) -> Path:
        """A stage's columns for one shard."""
        return self.root / "scores" / address / f"{digest}.parquet"

    def staged(self, address: str, token: str) -> Path:
        """Folder of one shard's finished slices while its sidecar is not complete."""
        return self.root / "scores" / address / ".staged" / token

    def drop_staged(self, keep: set[str]) -> None:
        """Remove staged slices of shards that are complete: a worker that was given up for lost may write them late."""
        for folder in self.root.glob("scores/*/.staged/*"):
            if folder.name not in keep:
                shutil.rmtree(folder, ignore_errors=True)
        for folder in self.root.glob("scores/*/.staged"):
            with suppress(OSError):  # not empty
                folder.rmdir()

    def mark(self, token: str, facts: dict[str, Any]) -> None:
        """Note that a shard is complete, until pool.parquet says so: a crash in between costs nothing."""
        write_json(facts, self.root / "scores" / ".complete" / f"{token}.json", durable=False)

    def marked(self, token: str) -> dict[str, Any] | None:
        """What was noted of a shard; None for nothing."""
        try:
            facts: dict[str, Any] = read_json(self.root / "scores" / ".complete" / f"{token}.json")
        except (OSError, ValueError):
            return None
        return facts

    def marks(self) -> dict[str, dict[str, Any]]:
        """Token -> what was noted, of every shard that pool.parquet does not name yet."""
        found = {path.stem: self.marked(path.stem) for path in self.root.glob("scores/.complete/*.json")}
        return {token: facts for token, facts in found.items() if facts is not None}

    def drop_marks(self, tokens: set[str]) -> None:
        """Forget the marks of these shards; the folder stays while a worker may be about to write there."""
        for path in self.root.glob("scores/.complete/*.json"):
            if path.stem in tokens:
                path.unlink(missing_ok=True)

    def drop_empty_marks(self) -> None:
        """Remove the folder of marks when no worker is at work any more."""
        with suppress(OSError):  # not there, or not empty
            (self.root / "scores" / ".complete").rmdir()

    def fit(self, address: str) -> Path:
        """What was learned or decided from many shards."""
        self.used_fits.add(address)
        return self.root / "fits" / address

    def timing(self, address: str) -> Path:
        """How long that took whoever did it: not in its folder, whose bytes are the same whoever does it."""
        return self.root / "timings" / f"{address}.json"

    def spending(self, address: str) -> Path:
        """What a stage that pays by the request has spent since the last finished run, and the answers it got."""
        return self.root / "spending" / address

    def arm(self, address: str) -> Path:
        """An export that a training run compares."""
        self.used_arms.add(address)
        return self.root / "arms" / address

    def trials(self, name: str) -> Path:
        """Pilot runs of a recipe: their table, and a file for each."""
        return self.root / "trials" / name

    def selection(self, fp: str) -> Path:
        """What the export draws."""
        return self.root / "selection" / f"{fp}.parquet"

    def run(self, name: str) -> Path:
        """One run's record."""
        return self.root / "runs" / name

    def latest_run(self) -> str | None:
        """Name of the newest finished run."""
        pointer = self.root / "runs" / "latest"
        return pointer.read_text().strip() if pointer.exists() else None

    def read_pool(self) -> pa.Table:
        """The remembered shards; empty before the first run."""
        return read_table(self.pool) if self.pool.exists() else POOL.empty_table()


def sweep(folder: Path) -> None:
    """Remove temporary files that a killed run left below a folder; staged slices stay, they are finished work."""
    # Unlike rglob, os.walk takes it calmly when a folder goes away under its hands.
    for place, folders, files in os.walk(folder):
        for name in [name for name in folders if name.startswith(".writing-")]:
            folders.remove(name)
            shutil.rmtree(Path(place, name), ignore_errors=True)
        for name in files:
            if name.startswith(".writing-"):
                Path(place, name).unlink(missing_ok=True)


@contextmanager
def replacing(path: Path, *, durable: bool = True) -> Iterator[Path]:
    """A temporary name beside `path`; renamed onto it when the block ends well, removed when it does not.

    Before the rename its bytes are forced to the disk, so that not even a power failure leaves a name without content.
    What is not `durable` goes without: its reader must take a broken file for a missing one.

    Raises:
        CuveeError: the disk is full or the folder cannot be written, with what to do.
    """
    temporary = path.parent / f".writing-{path.name}-{uuid.uuid4().hex[:8]}"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        if durable:
            _force(temporary)
        os.replace(temporary, path)
    except OSError as error:
        raise CuveeError(
            f"could not write {path}: {error.strerror or error}; free space or make the folder writable, "
            "then run again: what is finished is kept"
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


def _force(path: Path) -> None:
    with open(path, "rb") as written:
        os.fsync(written.fileno())


def read_table(path: Path, columns: list[str] | None = None) -> pa.Table:
    """Read a Parquet file, or some of its columns; unlike `pq.read_table` it loads neither datasets nor pandas."""
    with pq.ParquetFile(path) as file:
        return file.read(columns)


def write_table(table: pa.Table, path: Path, facts: dict[str, Any] | None = None, *, durable: bool = True) -> None:
    """Write a Parquet file atomically, with `facts` as JSON under the metadata key `cuvee`; see `replacing`."""
    if facts is not None:
        table = table.replace_schema_metadata({b"cuvee": json.dumps(facts, sort_keys=True).encode()})
    with replacing(path, durable=durable) as temporary:
        pq.write_table(table, temporary, **FORM)


def join_parts(parts: list[Path], empty: pa.Schema, path: Path) -> None:
    """Join Parquet files into one, a row group each, atomically; no parts make an empty table of schema `empty`.

    A single part is moved: most shards are one slice, and a hundred thousand of them would be written twice.
    """
    if len(parts) == 1:
        path.parent.mkdir(parents=True, exist_ok=True)
        _force(parts[0])
        os.replace(parts[0], path)
        return
    schema = _joint([pq.read_schema(part) for part in parts]) if parts else empty
    with replacing(path) as temporary, pq.ParquetWriter(temporary, schema, **FORM) as writer:
        for part in parts:
            table = read_table(part)
            writer.write_table(table.cast(schema), row_group_size=max(1, len(table)))


def _joint(schemas: list[pa.Schema]) -> pa.Schema:
    """The first; its facts name the GPUs of all: another may have gone on with a shard after a restart."""
    facts = [json.loads((schema.metadata or {}).get(b"cuvee", b"{}")) for schema in schemas]
    if gpus := sorted({each["gpu"] for each in facts if "gpu" in each}):
        said = json.dumps(facts[0] | {"gpu": ", ".join(gpus)}, sort_keys=True)
        return schemas[0].with_metadata({b"cuvee": said.encode()})
    return schemas[0]


def is_whole(path: Path, rows: int) -> bool:
    """Whether a Parquet file is there, readable, and of so many rows."""
    try:
        return bool(pq.read_metadata(path).num_rows == rows)
    except (OSError, pa.ArrowException):
        return False


def write_json(value: Any, path: Path, *, durable: bool = True) -> None:
    """Write JSON atomically: sorted keys, two spaces, one newline at the end; see `replacing`."""
    text = json.dumps(value, indent=2, sort_keys=True, allow_nan=False) + "\n"
    with replacing(path, durable=durable) as temporary:
        temporary.write_text(text)


def read_json(path: Path) -> Any:
    """Read a JSON file."""
    return json.loads(path.read_text())


@cache
def machine_facts() -> dict[str, Any]:
    """Library versions and processor kind: the scope of the same-bytes promise."""
    return {"libraries": dict(_versions()), "processor": platform.machine(), "python": platform.python_version()}


def gpu_facts() -> dict[str, str]:
    """`gpu`: the name of the CUDA device that this process has; nothing where it has none."""
    if device_kind() != "cuda":
        return {}
    import torch

    return {"gpu": torch.cuda.get_device_name()}


def _versions() -> Iterator[tuple[str, str]]:
    for name in LIBRARIES:
        try:
            yield name, version(name)
        except ModuleNotFoundError:  # PackageNotFoundError: faiss-cpu stands in for faiss-gpu on some machines
            continue

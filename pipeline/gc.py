"""`cuvee gc`: what no run and no recipe needs any more. Nothing is removed before it was listed and asked for."""

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipeline.identify import look
from pipeline.learn import foreseen
from pipeline.lock import holding
from pipeline.resolve import folders, resolve
from pipeline.sidecars import Workspace, read_json, read_table, write_table
from schemas.errors import CuveeError, RecipeError

MOST_LISTED = 20


@dataclass
class Needed:
    """What must stay."""

    sidecars: set[tuple[str, str]] = field(default_factory=set)
    """(address, digest)."""
    fits: set[str] = field(default_factory=set)
    selections: set[str] = field(default_factory=set)
    arms: set[str] = field(default_factory=set)
    """Exports that a training run compares."""
    runs: set[str] = field(default_factory=set)
    accounts: set[str] = field(default_factory=set)
    """Of stages that pay, in runs that did not finish."""


def collect(root: Path, recipes: Sequence[Path], runs: int | None, *, remove: bool) -> dict[str, Any]:
    """List what can go, and remove it if told to.

    Args:
        root: the workspace.
        recipes: what they need of the pool as it stands now is kept, beside what the kept runs need.
        runs: newest runs to keep; None: all.
        remove: whether to remove.

    Raises:
        CuveeError: no workspace, or a run is using it.
        RecipeError: a recipe of another workspace.
    """
    if not (root / "pool.parquet").exists():
        raise CuveeError(f"{root} holds no pool.parquet; expected a cuvee workspace")
    workspace = Workspace(root)
    with holding(root):
        needed = _needed(workspace, recipes, runs)
        found = sorted(_garbage(workspace, needed))
        sizes = {path: _bytes(path) for path in found}
        if remove:
            for path in found:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
            _forget(workspace)
    return {
        "workspace": str(root),
        "removed": remove,
        "bytes": sum(sizes.values()),
        "runs_kept": len(needed.runs),
        "garbage": [{"path": str(path.relative_to(root)), "bytes": size} for path, size in sizes.items()],
    }


def _needed(workspace: Workspace, recipes: Sequence[Path], runs: int | None) -> Needed:
    needed = Needed()
    records = sorted(workspace.root.glob("runs/*/run.json"))
    for path in records[-runs:] if runs else records:
        _need_run(needed, path.parent, workspace)
    for recipe in recipes:
        resolved = resolve(recipe, models=False)
        if resolved.workspace.root.resolve() != workspace.root.resolve():
            raise RecipeError(f"{recipe} works in {resolved.workspace.root}, not in {workspace.root}; leave it out")
        if resolved.pins is not None:
            _need_run(needed, resolved.pins.folder, workspace)
        shards = look(resolved)[0]
        resolved = foreseen(resolved, shards)
        needed.accounts |= set(resolved.addresses.values())
        needed.fits |= {line["folder"].removeprefix("fits/") for line in resolved.fits.values()}
        digests = [shard.digest for shard in shards if shard.digest is not None]
        needed.sidecars |= {(address, digest) for address in folders(resolved).values() for digest in digests}
    return needed


def _need_run(needed: Needed, folder: Path, workspace: Workspace) -> None:
    """A run of this workspace, and the one whose fits it was pinned to."""
    if folder.resolve().parent != (workspace.root / "runs").resolve() or folder.name in needed.runs:
        return
    record = read_json(folder / "run.json")
    needed.runs.add(record["run"])
    if record.get("pinned_to"):
        _need_run(needed, Path(record["pinned_to"]), workspace)
    needed.fits |= set(record.get("fits", []))
    needed.selections |= {f"{record['selection']}.parquet"}
    needed.arms |= set(record.get("arms", []))
    shards = folder / "pool.parquet"
    digests = read_table(shards)["digest"].to_pylist() if shards.exists() else []
    needed.sidecars |= {(address, digest) for address in record["addresses"].values() for digest in digests if digest}


def _garbage(workspace: Workspace, needed: Needed) -> Iterator[Path]:
    root = workspace.root
    for folder in root.glob("scores/[!.]*"):
        of_folder = {digest for address, digest in needed.sidecars if address == folder.name}
        if not of_folder:
            yield folder
        else:
            yield from (path for path in folder.glob("*.parquet") if path.stem not in of_folder)
    kept = {
        "fits": needed.fits,
        "timings": {f"{name}.json" for name in needed.fits},
        "selection": needed.selections,
        "arms": needed.arms,
        "spending": needed.accounts,
    }
    for part, names in kept.items():
        yield from (path for path in root.glob(f"{part}/*") if path.name not in names)
    yield from (path for path in root.glob("runs/*/") if path.name not in needed.runs)


def _bytes(path: Path) -> int:
    files = [path] if path.is_file() else [inside for inside in path.rglob("*") if inside.is_file()]
    return sum(file.stat().st_size for file in files)


def _forget(workspace: Workspace) -> None:
    """Shards whose index is gone need no line in pool.parquet: they are as good as never seen."""
    known = {path.stem for path in workspace.root.glob("scores/index-*/*.parquet")}
    pool = workspace.read_pool()
    keep = [
        digest in known or reason is not None
        for digest, reason in zip(pool["digest"].to_pylist(), pool["reason"].to_pylist(), strict=True)
    ]
    write_table(pool.filter(pa.array(keep, pa.bool_())), workspace.pool)


def garbage_text(facts: dict[str, Any]) -> str:
    """The list for a terminal."""
    megabytes = facts["bytes"] / 1e6
    lines = [f"  {entry['bytes'] / 1e6:10.2f} MB  {entry['path']}" for entry in facts["garbage"][:MOST_LISTED]]
    if len(facts["garbage"]) > MOST_LISTED:
        lines.append(f"  and {len(facts['garbage']) - MOST_LISTED} more; --json lists all")
    verb = "removed" if facts["removed"] else "would remove"
    count, kept = len(facts["garbage"]), facts["runs_kept"]
    lines.append(f"{verb} {count} files and folders, {megabytes:.1f} MB; kept what {kept} runs need")
    return "\n".join(
        lines if facts["removed"] or not facts["garbage"] else [*lines, "run it with --yes to remove them"]
    )

"""What a contest of finished selections is told to compare: runs, exports, workspaces, recipes; how each is read."""

import hashlib
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import polars as pl

from pipeline.ledger import read_ledger
from pipeline.replay import tars_of
from pipeline.resolve import Resolved, load_recipe, resolve_recipe
from pipeline.sidecars import Workspace, read_json
from pipeline.training.feeding import COLUMNS, FEED, feed_of
from schemas.errors import RecipeError
from schemas.recipe import Recipe
from schemas.tables import POOL_ROLE
from stages.train.samples import Pair, read_pairs

Reader = Callable[[], Iterator[Pair]]
MANIFEST, RECORD = "manifest.json", "run.json"
NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9_.-]+")


@dataclass(frozen=True)
class Tar:
    """One exported shard."""

    path: str

    def __call__(self) -> Iterator[Pair]:
        """Its samples."""
        return read_pairs([self.path])


@dataclass(frozen=True)
class Contestant:
    """One selection with what made it."""

    name: str
    named: str
    """What the user named."""
    address: str
    """Of its samples."""
    readers: tuple[Reader, ...]
    """Its samples in parts."""
    run: Path | None
    """Folder of the run that made it; None where nobody knows."""

    @cached_property
    def record(self) -> dict[str, Any] | None:
        """What stands in its run.json."""
        return read_json(self.run / RECORD) if self.run else None

    @cached_property
    def resolved(self) -> Resolved | None:
        """The recipe of its run."""
        return None if self.record is None else recipe_of(self.record)


def recipe_of(record: dict[str, Any]) -> Resolved:
    """The recipe that a run's record holds."""
    recipe = Recipe.model_validate(record["recipe"])
    return resolve_recipe(recipe, Path(record["recipe_folder"]), models=False)


def contestants(named: Sequence[str]) -> list[Contestant]:
    """What was named, each under a name of its own.

    Args:
        named: `PLACE` or `NAME=PLACE`; a place is the folder of a run, an export (or its manifest.json), a workspace or
            a recipe; of the last two, the newest run.

    Raises:
        RecipeError: a place that holds no finished selection, or two contestants of one name.
    """
    found = [_contestant(each) for each in named]
    names = [contestant.name for contestant in found]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise RecipeError(f"two selections are called {twice[0]!r}; name them apart: `NAME=PLACE`")
    return found


def _contestant(named: str) -> Contestant:
    name, sign, place = named.partition("=")
    given, path = (name, Path(place)) if sign and not Path(named).exists() else ("", Path(named))
    if path.name == MANIFEST and path.is_file():
        path = path.parent
    if (path / MANIFEST).is_file():
        return _of_export(given or path.resolve().name, named, path, _maker(path))
    run = newest_run(path)
    facts = read_json(run / RECORD)
    title = NOT_IN_NAMES.sub("-", given or facts["run"])
    export = facts["export"]
    there = Path(export["folder"]) if export else None
    if there is not None and (there / MANIFEST).is_file() and _is_of(there, export["address"]):
        return _of_export(title, named, there, run)
    return _of_run(title, named, run)


def newest_run(path: Path) -> Path:
    """The folder of a finished run: the one named, or the newest one of a workspace or a recipe.

    Raises:
        RecipeError: there is none.
    """
    if (path / RECORD).is_file():
        return path
    if path.is_file():
        recipe = load_recipe(path)
        root = (path.resolve().parent / recipe.workspace).resolve()
        records = [file for file in sorted(root.glob(f"runs/*/{RECORD}")) if _called(file) == recipe.name]
        if not records:
            raise RecipeError(f"recipe {path} has no finished run in {root}; run it first: `cuvee run {path}`")
        return records[-1].parent
    newest = Workspace(path).latest_run() if path.is_dir() else None
    if newest is None:
        raise RecipeError(
            f"{str(path)!r} is no selection; name the folder of a finished run or of an export, a workspace or a recipe"
        )
    return path / "runs" / newest


def _called(record: Path) -> str:
    return str(read_json(record)["recipe"]["name"])


def _is_of(folder: Path, address: str) -> bool:
    manifest = read_json(folder / MANIFEST)
    return bool(manifest["address"] == address and manifest.get("materialized", True))


def _maker(export: Path) -> Path | None:
    """The run that wrote an export, where it lies in its workspace."""
    address = read_json(export / MANIFEST).get("address")
    for record in sorted(export.resolve().parents[1].glob(f"runs/*/{RECORD}"), reverse=True):
        found = read_json(record)["export"]
        if found and found["address"] == address:
            return record.parent
    return None


def _of_export(name: str, named: str, folder: Path, run: Path | None) -> Contestant:
    tars = sorted(tars_of(folder.resolve() / MANIFEST, "--compare"))
    address = read_json(folder / MANIFEST)["address"]
    return Contestant(NOT_IN_NAMES.sub("-", name), named, address, tuple(Tar(tar) for tar in tars), run)


def _of_run(name: str, named: str, run: Path) -> Contestant:
    """What a run selected, read from its pool: it wrote no tars, or another run has replaced them."""
    record = read_json(run / RECORD)
    if record["selection"] is None:
        raise RecipeError(
            f"run {record['run']} of {named!r} ended before it drew samples; run it on to `mix` or further"
        )
    resolved = recipe_of(record)
    if resolved.recipe.export and len(resolved.recipe.export.split or ()) > 1:
        raise RecipeError(
            f"{named!r} was split and its tars are gone, so its part `train` is not known; export it again"
        )
    samples = _drawn(run)
    address = hashlib.sha256(samples.select("exported_key", "place", "row").write_csv().encode()).hexdigest()[:16]
    places = {
        f"{digest}/{item.source}": {"container": vars(item.container), "index": item.index_address}
        for item in resolved.roles(POOL_ROLE)
        for digest in _digests(run, item.source, item.container.path)
    }
    if lost := sorted(set(samples["place"]) - set(places)):
        raise RecipeError(f"{named!r} drew from shard {lost[0]}, which its recipe does not list any more; run it again")
    reads = feed_of(samples, places, resolved.workspace, resolved.workspace.arm(f"contest-{address}") / FEED)
    return Contestant(name, named, address, reads.parts(), run)


def _digests(run: Path, source: str, path: str) -> list[str]:
    pool = pl.read_parquet(run / "pool.parquet").filter(pl.col("digest").is_not_null())
    return pool.filter(pl.col("source") == source, pl.col("path") == path)["digest"].to_list()


def _drawn(run: Path) -> pl.DataFrame:
    """(exported_key, uid, source, place, row) of a run's samples, repeats spelled out, in key order."""
    lines = read_ledger(run / "ledger").filter(pl.col("role") == POOL_ROLE, pl.col("repeats") > 0)
    pool = pl.read_parquet(run / "pool.parquet").filter(pl.col("role") == POOL_ROLE)
    digests = pool.select("source", "digest", pl.col("path").alias("shard"))
    lines = lines.join(digests, on=["source", "shard"], how="left", validate="m:1")
    spelled = lines.with_columns(pl.int_ranges(0, pl.col("repeats")).alias("repeat")).explode("repeat")
    suffix = pl.when(pl.col("repeats") > 1).then(pl.format("-{}", "repeat")).otherwise(pl.lit(""))
    place = pl.concat_str("digest", "source", separator="/").alias("place")
    return (
        spelled.with_columns((pl.col("uid") + suffix).alias("exported_key"), place).select(COLUMNS).sort("exported_key")
    )

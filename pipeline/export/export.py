"""The export: planned and finished by the driver, its shards written by Ray tasks; the folder appears whole."""

import glob
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import polars as pl

from pipeline.cluster import Cluster
from pipeline.export.card import card
from pipeline.export.draws import Draws
from pipeline.export.energon import Energon
from pipeline.export.format import Format, file_sha256
from pipeline.export.huggingface import HuggingFace
from pipeline.export.listed import write_listed
from pipeline.export.mds import Mds
from pipeline.export.parquet import Parquet
from pipeline.export.plan import DRAWN, PLAN, SPOOL, ExportPlan, make_export_plan, read_layout
from pipeline.export.split import realised
from pipeline.export.webdataset import WebDataset
from pipeline.export.write import WriteShard
from pipeline.fingerprints import rounded
from pipeline.sidecars import read_json, replacing, sweep, write_json, write_table
from pipeline.tasks import run_tasks
from schemas.columns import CAPTIONS
from schemas.errors import RecipeError
from schemas.tables import MEMBERS

MOST_AT_ONCE = 4
"""Output shards of one task."""
ADDRESS = "[0-9a-f]" * 16
FORMATS: dict[str, type[Format]] = {
    "webdataset": WebDataset,
    "parquet": Parquet,
    "mds": Mds,
    "energon": Energon,
    "huggingface": HuggingFace,
}


def refuse_foreign(folder: Path, name: str) -> None:
    """An output folder that holds something else is never written to.

    Raises:
        RecipeError: the folder holds files of unknown origin, or another recipe's export.
    """
    if not folder.exists() or not any(folder.iterdir()):
        return
    owner = (_manifest(folder) or {}).get("name")
    if owner != name:
        found = f"the export of recipe {owner!r}" if owner else "files that are no cuvee export"
        raise RecipeError(
            f"output folder {folder} holds {found}; expected it empty or from recipe {name!r}: "
            "name another `export.folder` or recipe name, or move it away"
        )


def _manifest(folder: Path) -> dict[str, Any] | None:
    """The manifest of a cuvee export; None where there is none."""
    try:
        found = read_json(folder / "manifest.json")
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) and {"name", "address"} <= set(found) else None


def export(
    draws: Draws, folder: Path, name: str, cluster: Cluster, progress: Callable[[str, int, int], None] = lambda *_: None
) -> tuple[dict[str, Any], bool]:
    """Write the shards and what stands beside them; the folder appears whole, replacing an older export of `name`.

    Returns the manifest, and whether it was there already.

    Raises:
        RecipeError: see `refuse_foreign`.
        CuveeError: a worker failed (finished shards are kept for the next run), or a split gets no sample.
    """
    refuse_foreign(folder, name)
    present = _manifest(folder)
    if present is not None and present["address"] == draws.address:
        return present, True
    staging = folder.parent / f".{folder.name}-{draws.address}.staged"
    sweep(staging)
    if not draws.settings.materialize:
        manifest = write_listed(draws, staging, name)
        _appear(staging, folder)
        return manifest, False
    kind = FORMATS[draws.settings.kind]
    plan = make_export_plan(draws, staging, kind.names, cluster)
    declared = {field.name: field for stage in draws.table.resolved.stages for field in stage.writes}
    declared[CAPTIONS.name] = CAPTIONS
    form = kind(read_layout(staging / PLAN, [declared[column] for column in draws.settings.columns]))
    digests = _write_shards(draws, staging, plan, form, cluster, progress)
    manifest = _beside(draws, staging, name, plan, form, digests)
    _appear(staging, folder)
    return manifest, False


def _write_shards(
    draws: Draws,
    staging: Path,
    plan: ExportPlan,
    form: Format,
    cluster: Cluster,
    progress: Callable[[str, int, int], None],
) -> dict[str, str]:
    """SHA-256 of every output shard; what an earlier run finished is not written again."""
    resolved, shards = draws.table.resolved, plan.shards
    writers = {field.name: stage.name for stage in resolved.stages for field in stage.writes}
    sources = [source.source for source in resolved.recipe.pool]
    job = WriteShard(
        workspace=str(resolved.workspace.root),
        staging=str(staging),
        plan=str(staging / PLAN),
        groups={shard: number for number, shard in enumerate(shards)},
        containers=plan.containers,
        columns={
            column: {source: resolved.address(writers[column], source) for source in sources}
            for column in draws.settings.columns
            if column != CAPTIONS.name  # they stand in the plan
        },
        format=form,
    )
    digests = {shard: file_sha256(staging / shard) for shard in shards if (staging / shard).exists()}
    missing = [shard for shard in shards if shard not in digests]
    for _, (shard, digest) in run_tasks(cluster, job, _pieces(missing, cluster)):
        digests[shard] = digest
        progress("exporting", len(digests), len(shards))
    return digests


def _pieces(shards: list[str], cluster: Cluster) -> Iterator[str]:
    """Some shards for each task, a line each: one is made while another goes to the disk; two tasks a core or more."""
    if shards:
        cores = max(1, int(cluster.ray.cluster_resources().get("CPU", 1)))
        size = max(1, min(MOST_AT_ONCE, len(shards) // (2 * cores)))
        yield from ("\n".join(shards[start : start + size]) for start in range(0, len(shards), size))


def _beside(
    draws: Draws, staging: Path, name: str, plan: ExportPlan, form: Format, digests: dict[str, str]
) -> dict[str, Any]:
    """Write members.parquet, manifest.json, the data card and what the format's readers need."""
    members = plan.samples.with_columns(pl.col("digest").alias("shard")).select(MEMBERS.names)
    write_table(members.to_arrow().cast(MEMBERS), staging / "members.parquet")
    shards = _shards(plan, staging, digests)
    form.beside(staging, name, shards)
    manifest = {
        "name": name,
        "address": draws.address,
        "kind": draws.settings.kind,
        "members": sorted({suffix for suffixes in form.layout.suffixes for suffix in suffixes}),
        "samples": len(members),
        "distinct_samples": members["uid"].n_unique(),
        "sources": dict(members.group_by("source").len().sort("source").iter_rows()),
        "splits": realised(plan.samples, draws.settings.split or {}),
        "shards": shards,
        **rounded(draws.facts),
    }
    write_json(manifest, staging / "manifest.json")
    with replacing(staging / "README.md") as temporary:
        temporary.write_text(form.front_matter(manifest) + card(manifest, form))
    for scaffold in (PLAN, DRAWN):
        (staging / scaffold).unlink(missing_ok=True)
    shutil.rmtree(staging / SPOOL, ignore_errors=True)
    return manifest


def _shards(plan: ExportPlan, staging: Path, digests: dict[str, str]) -> list[dict[str, Any]]:
    counts = plan.samples.group_by("exported_shard", "split", maintain_order=True).len()
    return [
        {
            "url": shard,
            "split": split,
            "nsamples": count,
            "filesize": (staging / shard).stat().st_size,
            "sha256": digests[shard],
        }
        for shard, split, count in counts.iter_rows()
    ]


def _appear(staging: Path, folder: Path) -> None:
    """Swap the finished folder in: the older export stays whole until the new one has its place.

    What an attempt at another export of this name had staged before it was given up goes, too.
    """
    sweep(staging)  # a worker that was killed in the middle of a shard leaves it half written
    old = folder.parent / f".writing-{folder.name}-old"
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.rename(old)
    staging.rename(folder)
    for useless in (old, *folder.parent.glob(f".{glob.escape(folder.name)}-{ADDRESS}.staged")):
        shutil.rmtree(useless, ignore_errors=True)

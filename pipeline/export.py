"""The export graph on Ray Data: one row is one output shard, written from byte ranges of the input, bytes unchanged."""

import hashlib
import io
import json
import shutil
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import xxhash

from pipeline.blend import Blend
from pipeline.cluster import Cluster
from pipeline.fingerprints import fingerprint, rounded
from pipeline.plan import Shard
from pipeline.shards import Container, read_members
from pipeline.shards.rows import content_hash
from pipeline.sidecars import Workspace, read_json, read_table, replacing, sweep, write_json, write_table
from pipeline.table import ScoreTable
from schemas.errors import CuveeError, RecipeError, ShardError
from schemas.recipe import Export
from schemas.tables import MEMBERS, POOL_ROLE
from stages.noise import uniform_noise

EXPORT_VERSION = 1
"""Raise it when the same selection is written as other bytes."""
PLAN = "plan.parquet"


@dataclass(frozen=True)
class Draws:
    """What to write and under which name: the selected samples of a pool."""

    table: ScoreTable
    repeats: pl.DataFrame
    """(uid, repeats)."""
    settings: Export
    facts: dict[str, Any]
    """Goes into the manifest; free of paths, times and hosts."""

    @property
    def address(self) -> str:
        """Content address of everything the exported bytes depend on."""
        drawn = self.repeats.filter(pl.col("repeats") > 0).sort("uid")
        content = hashlib.sha256(drawn.write_csv().encode()).hexdigest()
        settings = self.settings.model_dump(mode="json", exclude={"folder"})
        addresses = self.table.resolved.addresses if self.settings.columns else {}
        return fingerprint([EXPORT_VERSION, content, settings, addresses, self.facts, self._seed])

    @property
    def _seed(self) -> int:
        return self.table.resolved.recipe.seed


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
        CuveeError: a worker failed; finished shards are kept for the next run.
    """
    refuse_foreign(folder, name)
    present = _manifest(folder)
    if present is not None and present["address"] == draws.address:
        return present, True
    staging = folder.parent / f".{folder.name}-{draws.address}.staged"
    sweep(staging)
    members = _planned(draws, staging)
    shards = members.partition_by("exported_shard", maintain_order=True)
    missing = [shard["exported_shard"][0] for shard in shards if not (staging / shard["exported_shard"][0]).exists()]
    if missing:
        for done, _ in enumerate(_written(draws, staging, missing, cluster), start=1):
            progress("exporting", len(shards) - len(missing) + done, len(shards))
    manifest = _beside(draws, staging, name, members)
    _appear(staging, folder)
    return manifest, False


def _planned(draws: Draws, staging: Path) -> pl.DataFrame:
    """The members in output order: repeats spelled out, shuffled by (seed, uid, repeat), cut into shards."""
    identity = draws.table.samples.filter(pl.col("role") == POOL_ROLE)
    drawn = draws.repeats.filter(pl.col("repeats") > 0).join(identity, on="uid", validate="1:1").sort("uid")
    spelled = drawn.with_columns(pl.int_ranges(0, pl.col("repeats")).alias("repeat")).explode("repeat")
    suffix = pl.when(pl.col("repeats") > 1).then(pl.format("-{}", "repeat")).otherwise(pl.lit(""))
    keyed = spelled.with_columns((pl.col("uid") + suffix).alias("exported_key"))
    noise = uniform_noise(keyed["exported_key"].to_list(), draws._seed, "export order")
    ordered = keyed.with_columns(pl.Series("order", noise)).sort("order", "exported_key")
    number = pl.int_range(pl.len()) // draws.settings.samples_per_shard
    named = number.cast(pl.String).str.zfill(5) + ".tar"
    planned = ordered.with_columns(named.alias("exported_shard"))
    write_table(planned.select(*MEMBERS.names, "digest", "row", "role").to_arrow(), staging / PLAN)
    return planned


def _written(draws: Draws, staging: Path, missing: list[str], cluster: Cluster) -> Iterator[str]:
    resolved = draws.table.resolved
    columns = {
        column: resolved.addresses[stage.kind]
        for stage in resolved.stages
        for column in (field.name for field in stage.writes)
        if column in draws.settings.columns
    }
    job = ExportJob(str(resolved.workspace.root), str(staging), _places(draws.table.shards), columns)
    cpus = max(1, int(cluster.ray.cluster_resources().get("CPU", 1)))
    data = cluster.ray.data
    graph = data.from_items([{"shard": name} for name in missing], override_num_blocks=len(missing)).map_batches(
        job,
        batch_size=None,
        batch_format="pyarrow",
        num_cpus=1,
        compute=data.TaskPoolStrategy(size=min(cpus, len(missing))),
    )
    for batch in graph.iter_batches(batch_size=None, batch_format="pyarrow"):
        for text in batch["report"].to_pylist():
            report = json.loads(text)
            if "error" in report:
                raise CuveeError(report["error"])
            yield report["shard"]


def _places(shards: tuple[Shard, ...]) -> dict[str, dict[str, Any]]:
    """Per (digest, source), where a shard can be read again; twins by content serve for each other."""
    return {
        f"{shard.digest}/{shard.input.source}": {
            "container": vars(shard.input.container),
            "index": shard.input.index_address,
        }
        for shard in sorted(shards, key=lambda shard: shard.input.container.path, reverse=True)
        if shard.digest is not None and shard.input.role == POOL_ROLE
    }


@dataclass(frozen=True)
class ExportJob:
    """Writes output shards in a worker; plain values only, so that it travels as it is."""

    workspace: str
    staging: str
    places: dict[str, dict[str, Any]]
    columns: dict[str, str]
    """Score column -> sidecar folder, for KEY.cuvee.json."""

    def __call__(self, batch: pa.Table) -> dict[str, list[str]]:
        """One row per output shard in, one report each out."""
        return {"report": [json.dumps(self._report(name)) for name in batch["shard"].to_pylist()]}

    def _report(self, name: str) -> dict[str, Any]:
        try:
            self.write(name)
        except CuveeError as error:
            return {"error": f"export of {name}: {error}"}
        return {"shard": name}

    def write(self, name: str) -> None:
        """Write one tar: fixed names, order, times and padding."""
        planned = pl.read_parquet(Path(self.staging) / PLAN).filter(pl.col("exported_shard") == name)
        samples = self._samples(planned)
        # webdataset's own writer would do, but importing it loads torch: seconds in every worker.
        with replacing(Path(self.staging) / name) as temporary, tarfile.open(temporary, "w") as archive:
            for key, digest, source, row in planned.select("exported_key", "digest", "source", "row").iter_rows():
                for suffix, content in sorted(samples[digest, source, row].items()):
                    archive.addfile(_member(f"{key}.{suffix}", len(content)), io.BytesIO(content))

    def _samples(self, planned: pl.DataFrame) -> dict[tuple[str, str, int], dict[str, bytes]]:
        samples: dict[tuple[str, str, int], dict[str, bytes]] = {}
        for (digest, source), part in planned.partition_by("digest", "source", as_dict=True).items():
            place = self.places[f"{digest}/{source}"]
            rows = np.unique(part["row"].to_numpy())
            index = self._read(place["index"], str(digest)).take(pa.array(rows))
            extra = self._scores(str(digest), rows)
            container = Container(**place["container"])
            lines = zip(
                rows.tolist(), index["content_hash"].to_pylist(), read_members(container, index), extra, strict=True
            )
            for row, expected, suffixes, scores in lines:
                files = {suffix.removeprefix("."): content for suffix, content in suffixes}
                _assert_indexed(container, files, expected)
                samples[str(digest), str(source), row] = files | scores
        return samples

    def _scores(self, digest: str, rows: "np.ndarray[Any, Any]") -> list[dict[str, bytes]]:
        if not self.columns:
            return [{} for _ in rows]
        values = {
            column: self._read(address, digest)[column].take(pa.array(rows)).to_pylist()
            for column, address in sorted(self.columns.items())
        }
        lines = [{column: rounded(found[i]) for column, found in values.items()} for i in range(len(rows))]
        return [{"cuvee.json": json.dumps(line, sort_keys=True).encode()} for line in lines]

    def _read(self, address: str, digest: str) -> pa.Table:
        return read_table(Workspace(Path(self.workspace)).sidecar(address, digest))


def _assert_indexed(container: Container, files: dict[str, bytes], expected: str | None) -> None:
    """What is exported is what was scored.

    Raises:
        ShardError: the shard changed after it was indexed.
    """
    hashed = ((suffix, len(content), xxhash.xxh3_128_hexdigest(content)) for suffix, content in files.items())
    if content_hash(hashed) != expected:
        raise ShardError(
            f"{container.path} is not what it was when it was scored; run again to score it as it is now",
            "shard_changed",
        )


def _member(name: str, size: int) -> tarfile.TarInfo:
    """A header that depends on nothing but name and size: no time, no owner."""
    header = tarfile.TarInfo(name)
    header.size, header.mode = size, 0o444
    return header


def _beside(draws: Draws, staging: Path, name: str, members: pl.DataFrame) -> dict[str, Any]:
    """Write members.parquet, index.json (wids), manifest.json and the data card."""
    listed = members.select(*(MEMBERS.names[:4]), pl.col("digest").alias("shard"), "key")
    write_table(listed.to_arrow().cast(MEMBERS), staging / "members.parquet")
    counts = dict(members.group_by("exported_shard").len().sort("exported_shard").iter_rows())
    shards = [_shard_facts(staging / shard, count) for shard, count in counts.items()]
    index = [{"url": shard["url"], "nsamples": shard["nsamples"], "filesize": shard["filesize"]} for shard in shards]
    wids = {"__kind__": "wids-shard-index-v1", "wids_version": 1, "name": name, "shardlist": index}
    write_json(wids, staging / "index.json")
    sources = dict(members.group_by("source").len().sort("source").iter_rows())
    manifest = {
        "name": name,
        "address": draws.address,
        "samples": len(members),
        "distinct_samples": members["uid"].n_unique(),
        "sources": sources,
        "shards": shards,
        **rounded(draws.facts),
    }
    write_json(manifest, staging / "manifest.json")
    with replacing(staging / "README.md") as temporary:
        temporary.write_text(_card(manifest))
    (staging / PLAN).unlink()
    return manifest


def _shard_facts(path: Path, count: int) -> dict[str, Any]:
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        while chunk := stream.read(1 << 20):
            digest.update(chunk)
    return {"url": path.name, "nsamples": count, "filesize": path.stat().st_size, "sha256": digest.hexdigest()}


def _card(manifest: dict[str, Any]) -> str:
    rows = "\n".join(
        f"| {source} | {count} | {count / manifest['samples']:.1%} |" for source, count in manifest["sources"].items()
    )
    return (
        f"# {manifest['name']}\n\n"
        f"{manifest['samples']} image-text samples ({manifest['distinct_samples']} distinct) in "
        f"{len(manifest['shards'])} WebDataset shards, curated by cuvee.\n\n"
        f"| source | samples | share |\n| --- | ---: | ---: |\n{rows}\n\n"
        "Each sample holds the members it had in its source, byte for byte, under the key `UID` or `UID-REPEAT`.\n"
        "`members.parquet` maps exported keys to source, input shard (by SHA-256) and original key;\n"
        "`manifest.json` lists every shard's SHA-256 and the fingerprints of recipe and pool;\n"
        "`index.json` is the shard index that webdataset's indexed readers take.\n\n"
        f"Recipe fingerprint `{manifest.get('recipe', '')}`, pool fingerprint `{manifest.get('pool', '')}`.\n"
    )


def _appear(staging: Path, folder: Path) -> None:
    """Swap the finished folder in: the older export stays whole until the new one has its place."""
    old = folder.parent / f".writing-{folder.name}-old"
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.rename(old)
    staging.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def blend_draws(table: ScoreTable, blend: Blend) -> Draws:
    """The recipe's own export."""
    recipe = table.resolved.recipe
    assert recipe.export is not None
    facts = {
        "recipe": table.resolved.recipe_fingerprint(),
        "pool": table.pool_fingerprint(),
        "seed": recipe.seed,
        "weights": {source: shares["realised"] for source, shares in blend.shares.items()},
        "settings": table.resolved.identity(),
    }
    return Draws(table, blend.draws.select("uid", "repeats"), recipe.export, facts)

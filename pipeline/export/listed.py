"""An export that writes no shard (`materialize: false`): which samples, how often, in which order, and where they are.

For trainers that read the pool themselves, and mix online: `members.parquet` lists the samples as in any export,
`weights.json` says per source its share and the shards that hold the drawn samples, by SHA-256; the workspace's
pool.parquet knows their paths. `cuvee train` reads the samples from the pool's shards.
"""

from pathlib import Path
from typing import Any

import polars as pl

from pipeline.export.draws import Draws
from pipeline.export.plan import ordered
from pipeline.export.split import realised
from pipeline.fingerprints import rounded
from pipeline.sidecars import replacing, write_json, write_table
from schemas.tables import MEMBERS

WEIGHTS = "weights.json"
NAMES = "{folder}"
"""In place of a shard, members.parquet names the split with a slash behind it, or nothing."""


def write_listed(draws: Draws, staging: Path, name: str) -> dict[str, Any]:
    """Write members.parquet, weights.json, manifest.json and the card; returns the manifest."""
    samples = ordered(draws, NAMES)
    members = samples.with_columns(pl.col("digest").alias("shard")).select(MEMBERS.names)
    write_table(members.to_arrow().cast(MEMBERS), staging / "members.parquet")
    write_json(_weights(samples), staging / WEIGHTS)
    manifest = {
        "name": name,
        "address": draws.address,
        "kind": draws.settings.kind,
        "materialized": False,
        "members": [],
        "samples": len(members),
        "distinct_samples": members["uid"].n_unique(),
        "sources": dict(members.group_by("source").len().sort("source").iter_rows()),
        "splits": realised(samples, draws.settings.split or {}),
        "shards": [],
        **rounded(draws.facts),
    }
    write_json(manifest, staging / "manifest.json")
    with replacing(staging / "README.md") as temporary:
        temporary.write_text(_card(manifest))
    return manifest


def _weights(samples: pl.DataFrame) -> dict[str, Any]:
    """Source -> its share of the samples, and the drawn ones per shard."""
    counts = samples.group_by("source", "digest").len("samples").sort("source", "digest")
    found: dict[str, Any] = {}
    for (source,), part in counts.partition_by("source", as_dict=True, maintain_order=True).items():
        share = part["samples"].sum() / len(samples)
        found[str(source)] = {"weight": share, "shards": dict(part.select("digest", "samples").iter_rows())}
    weights: dict[str, Any] = rounded(found)
    return weights


def _card(manifest: dict[str, Any]) -> str:
    counts = manifest["sources"].items()
    rows = "\n".join(f"| {source} | {count} | {count / manifest['samples']:.1%} |" for source, count in counts)
    return (
        f"# {manifest['name']}\n\n"
        f"A selection of {manifest['samples']} image-text samples ({manifest['distinct_samples']} distinct), curated "
        "by cuvee; it names samples of a pool and holds none.\n\n"
        f"| source | samples | share |\n| --- | ---: | ---: |\n{rows}\n\n"
        "`members.parquet` names every sample: uid, source, input shard (by SHA-256) and key; what is drawn several\n"
        f"times has several lines. `{WEIGHTS}` holds each source's share and its shards with what is drawn of them.\n\n"
        f"Recipe fingerprint `{manifest.get('recipe', '')}`, pool fingerprint `{manifest.get('pool', '')}`.\n"
    )

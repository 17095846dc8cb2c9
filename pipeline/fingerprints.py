"""Content addresses: what a result depends on, as one short hexadecimal name."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import xxhash

from stages.fitted_stage import FittedStage
from stages.stage import Stage

if TYPE_CHECKING:
    import polars as pl

SLICE_BYTES = 64 << 20
"""Bytes of images and text after which a slice ends; batches are cut inside slices, so it is part of every address."""
SLICE_ROWS = 4096
"""Rows after which a slice ends."""
SPELLED_OUT = r"[^ !#-\[\]-~]"
"""What JSON does not leave as it is: all but printable ASCII, quotes and backslashes."""
INDEX_VERSION = 4
"""Raise it when ingest changes what stands in the index for the same bytes, or how a shard is named by them."""


def fingerprint(facts: object) -> str:
    """16 hexadecimal digits of the SHA-256 of `facts` as canonical JSON."""
    text = json.dumps(facts, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def index_address(settings: dict[str, str]) -> str:
    """Folder name of the index sidecars for one way of reading a container."""
    facts = {"version": INDEX_VERSION, "slice": [SLICE_BYTES, SLICE_ROWS], "settings": settings}
    return f"index-{fingerprint(facts)}"


def stage_addresses(
    stages: Sequence[Stage], plugins: Mapping[str, str], fits: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Per kind, the folder name of its sidecars: kind, version, settings by content, slicing, inputs, fit.

    Args:
        stages: in recipe order.
        plugins: per kind that comes from a user's file, the file's SHA-256.
        fits: per kind that learns, its fit's SHA-256; a stage that waits for a fit, its own or an input's, is left out.
            None: what is asked for, whatever is learned, so that every stage has a name.
    """
    addresses: dict[str, str] = {}
    writers: dict[str, str] = {}
    for stage in stages:
        inputs = {writers[field.name] for field in inputs_of(stage) if field.name in writers}
        writers |= {field.name: stage.name for field in stage.writes}
        waits = fits is not None and isinstance(stage, FittedStage) and stage.name not in fits
        if waits or not inputs <= addresses.keys():
            continue
        facts = {
            "kind": stage.kind,
            "version": stage.version,
            "settings": stage.identity(),
            "batch_rows": stage.batch_rows,
            "slice": [SLICE_BYTES, SLICE_ROWS, INDEX_VERSION],
            "inputs": sorted(addresses[kind] for kind in inputs),
            "plugin": plugins.get(stage.kind),
        }
        if fits is not None and stage.name in fits:
            facts["fit"] = fits[stage.name]
        addresses[stage.name] = f"{stage.name}-{fingerprint(facts)}"
    return addresses


def inputs_of(stage: Stage) -> tuple[pa.Field, ...]:
    """The columns that a stage scores or learns with, each once."""
    return tuple(dict.fromkeys((*stage.reads, *(stage.studies() if isinstance(stage, FittedStage) else ()))))


def source_address(address: str, source: str) -> str:
    """Folder name of the sidecars of a stage that scores each source in its own way, for one of them."""
    return f"{address.rpartition('-')[0]}-{fingerprint([address, source])}"


def split_by_source(stages: Sequence[Stage]) -> frozenset[str]:
    """Kinds whose scores depend on the source: those that say so, and those that read what these write."""
    found: set[str] = set()
    written: set[str] = set()
    for stage in stages:
        names = {field.name for field in inputs_of(stage)}
        if (isinstance(stage, FittedStage) and stage.per_source) or names & written:
            found.add(stage.name)
            written |= {field.name for field in stage.writes}
    return frozenset(found)


def content_address(digest: str, settings: dict[str, str]) -> str:
    """A shard's identity: the BLAKE3 of its bytes, and of the settings it is read with where there are any.

    One Parquet file read with two caption columns is two shards as far as scores are concerned.
    """
    return f"{digest}-{fingerprint(settings)}" if settings else digest


def pool_fingerprint(shards: Iterable[tuple[str, str]]) -> str:
    """Fingerprint of (source, digest) pairs, whatever their order or paths."""
    return fingerprint(sorted(shards))


def sample_uid(source: str, key: str | None, content: str | None, occurrence: int) -> str:
    """32 hex digits from source, key, the bytes of every member, and the number of exact twins before it."""
    facts = json.dumps([source, key, content, occurrence])
    return xxhash.xxh3_128_hexdigest(facts.encode())


def sample_uids(facts: "pl.DataFrame") -> "pl.Series":
    """(n,) `sample_uid` of every line of (source, key, content, occurrence), most of them without Python's JSON."""
    import polars as pl

    sources = {source: json.dumps(source) for source in facts["source"].unique()}
    source = pl.col("source").replace_strict(sources, return_dtype=pl.String)
    text = pl.format('[{}, "{}", "{}", {}]', source, "key", "content", "occurrence")
    usual = ~pl.col("key").str.contains(SPELLED_OUT) & pl.col("content").is_not_null()
    texts = facts.select(pl.when(usual).then(text)).to_series()
    uids = [text if text is None else xxhash.xxh3_128_hexdigest(text.encode()) for text in texts.to_list()]
    for place in texts.is_null().arg_true().to_list():
        uids[place] = sample_uid(*facts.row(place))
    return pl.Series("uid", uids, pl.String)


def rounded(value: Any) -> Any:
    """JSON values with every float at 9 significant digits, so that libraries' last bits do not show."""
    if isinstance(value, float):
        return float(f"{value:.9g}")
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [rounded(item) for item in value]
    return value

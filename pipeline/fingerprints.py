"""Content addresses: what a result depends on, as one short hexadecimal name."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from typing import Any

import xxhash

from stages.stage import Stage

SLICE_BYTES = 64 << 20
"""Bytes of images and text after which a slice ends; batches are cut inside slices, so it is part of every address."""
SLICE_ROWS = 4096
"""Rows after which a slice ends."""
INDEX_VERSION = 3
"""Raise it when ingest changes what stands in the index for the same bytes."""


def fingerprint(facts: object) -> str:
    """16 hexadecimal digits of the SHA-256 of `facts` as canonical JSON."""
    text = json.dumps(facts, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def index_address(settings: dict[str, str]) -> str:
    """Folder name of the index sidecars for one way of reading a container."""
    facts = {"version": INDEX_VERSION, "slice": [SLICE_BYTES, SLICE_ROWS], "settings": settings}
    return f"index-{fingerprint(facts)}"


def stage_addresses(stages: Sequence[Stage], plugins: dict[str, str]) -> dict[str, str]:
    """Per stage name, the folder name of its sidecars: name, version, settings by content, slicing, inputs.

    Args:
        stages: in recipe order.
        plugins: per kind that comes from a user's file, the file's SHA-256.
    """
    addresses: dict[str, str] = {}
    writers: dict[str, str] = {}
    for stage in stages:
        facts = {
            "kind": stage.kind,
            "version": stage.version,
            "settings": stage.identity(),
            "batch_rows": stage.batch_rows,
            "slice": [SLICE_BYTES, SLICE_ROWS, INDEX_VERSION],
            "inputs": sorted(addresses[writers[field.name]] for field in stage.reads if field.name in writers),
            "plugin": plugins.get(stage.kind),
        }
        addresses[stage.name] = f"{stage.name}-{fingerprint(facts)}"
        writers |= {field.name: stage.name for field in stage.writes}
    return addresses


def content_address(digest: str, settings: dict[str, str]) -> str:
    """A shard's identity: the SHA-256 of its bytes, and of the settings it is read with where there are any.

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


def rounded(value: Any) -> Any:
    """JSON values with every float at 9 significant digits, so that libraries' last bits do not show."""
    if isinstance(value, float):
        return float(f"{value:.9g}")
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [rounded(item) for item in value]
    return value

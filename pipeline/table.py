"""The score table: every sample's identity in memory, its scores scanned lazily from the sidecars on demand."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import polars as pl
import pyarrow.parquet as pq

from pipeline.fingerprints import pool_fingerprint, sample_uid
from pipeline.plan import Shard
from pipeline.resolve import Resolved
from schemas.tables import POOL_ROLE

IDENTITY = {
    "uid": pl.String,
    "role": pl.String,
    "source": pl.String,
    "digest": pl.String,
    "shard": pl.String,
    "row": pl.Int64,
    "key": pl.String,
    "image_hash": pl.String,
    "index_reason": pl.String,
}
INDEX_COLUMNS = ("key", "caption", "image_hash", "content_hash", "index_reason")


@dataclass(frozen=True)
class ScoreTable:
    """All samples of pool, target and held-out shards."""

    resolved: Resolved
    shards: tuple[Shard, ...]

    @cached_property
    def samples(self) -> pl.DataFrame:
        """One line per sample in canonical order (uid), columns as `IDENTITY`.

        Exact twins (same source, key and bytes) are numbered by (shard digest, row, path), never by listing order.
        """
        frames = [self._indexed(shard) for shard in self.shards if shard.digest is not None]
        if not frames:
            return pl.DataFrame(schema=IDENTITY)
        table = pl.concat(frames).sort("digest", "row", "shard", "role", "source")
        twin = pl.int_range(pl.len()).over("role", "source", "key", "content_hash")
        table = table.with_columns(twin.alias("occurrence"))
        named = zip(*(table[name] for name in ("source", "key", "content_hash", "occurrence")), strict=True)
        uids = pl.Series("uid", [sample_uid(*facts) for facts in named], pl.String)
        return table.with_columns(uids).select(IDENTITY.keys()).sort("uid")

    def _indexed(self, shard: Shard) -> pl.DataFrame:
        assert shard.digest is not None
        path = self.resolved.workspace.sidecar(shard.input.index_address, shard.digest)
        index = pl.read_parquet(path, columns=["key", "image_hash", "content_hash", "index_reason"])
        return index.with_row_index("row").with_columns(
            pl.col("row").cast(pl.Int64),
            pl.lit(shard.input.role).alias("role"),
            pl.lit(shard.input.source).alias("source"),
            pl.lit(shard.digest).alias("digest"),
            pl.lit(shard.input.container.path).alias("shard"),
        )

    def scores(self, role: str, columns: Sequence[str]) -> pl.LazyFrame:
        """Lazy (uid, source, *columns) of every sample of a role, in no particular order."""
        frames = []
        for place, identity in self._by_shard.items():
            if place[1] != role:
                continue
            parts = [identity.lazy().select("uid", "source"), *self._scans(self._places[place], columns)]
            frames.append(pl.concat(parts, how="horizontal"))
        return pl.concat(frames) if frames else pl.LazyFrame(schema={"uid": pl.String, "source": pl.String})

    @cached_property
    def _by_shard(self) -> dict[tuple[str, str, str], pl.DataFrame]:
        groups = self.samples.sort("row").partition_by("shard", "role", "source", as_dict=True, maintain_order=True)
        return {(str(key[0]), str(key[1]), str(key[2])): frame for key, frame in sorted(groups.items())}

    @cached_property
    def _places(self) -> dict[tuple[str, str, str], Shard]:
        return {(s.input.container.path, s.input.role, s.input.source): s for s in self.shards}

    def _scans(self, shard: Shard, columns: Sequence[str]) -> list[pl.LazyFrame]:
        assert shard.digest is not None
        addresses = {name: shard.input.index_address for name in INDEX_COLUMNS}
        for stage in self.resolved.stages:
            written = [*(field.name for field in stage.writes), stage.reason_column().name]
            addresses |= dict.fromkeys(written, self.resolved.addresses[stage.kind])
        wanted: dict[str, list[str]] = {}
        for column in columns:
            wanted.setdefault(addresses[column], []).append(column)
        sidecars = (
            (self.resolved.workspace.sidecar(address, shard.digest), names) for address, names in wanted.items()
        )
        return [pl.scan_parquet(path).select(names) for path, names in sidecars]

    def pool_fingerprint(self, role: str = POOL_ROLE) -> str:
        """Content address of all readable shards of a role."""
        of_role = [s for s in self.shards if s.input.role == role]
        return pool_fingerprint((s.input.source, s.digest or f"unreadable: {s.reason}") for s in of_role)

    def counted(self) -> int:
        """Samples by the containers' own count; an unreadable shard counts as one."""
        return sum(self.lines(shard) for shard in self.shards)

    def lines(self, shard: Shard) -> int:
        """Samples of one shard by its index; 1 for an unreadable shard."""
        if shard.digest is None:
            return 1
        path = self.resolved.workspace.sidecar(shard.input.index_address, shard.digest)
        return int(pq.read_metadata(path).num_rows)

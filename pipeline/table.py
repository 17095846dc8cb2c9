"""The score table: every sample's identity in memory, its scores scanned lazily from the sidecars on demand."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import polars as pl

from pipeline.fingerprints import pool_fingerprint, sample_uids
from pipeline.plan import Shard
from pipeline.resolve import Resolved
from schemas.errors import ContractError
from schemas.tables import POOL_ROLE
from stages.stage import Stage

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
    """All samples of pool, target, held-out and reference shards."""

    resolved: Resolved
    shards: tuple[Shard, ...]
    _file_order: dict[str, pl.DataFrame] = field(default_factory=dict, init=False, repr=False, compare=False)

    @cached_property
    def samples(self) -> pl.DataFrame:
        """One line per sample in canonical order (uid), columns as `IDENTITY`.

        Exact twins (same source, key and bytes) are numbered by (shard digest, row, path), never by listing order.
        """
        if not self._readable:
            return pl.DataFrame(schema=IDENTITY)
        table = self._indexed().sort("digest", "row", "shard", "role", "source")
        twin = pl.int_range(pl.len()).over("role", "source", "key", "content_hash")
        if table["key"].n_unique() == len(table):  # as in most pools of one source
            twin = pl.lit(0, pl.Int64)
        facts = table.select("source", "key", pl.col("content_hash").alias("content"), twin.alias("occurrence"))
        return table.with_columns(sample_uids(facts)).select(IDENTITY.keys()).sort("uid")

    @cached_property
    def _readable(self) -> list[Shard]:
        """The shards that have an index, in an order of their own: by role, source and path."""
        found = [shard for shard in self.shards if shard.digest is not None]
        return sorted(found, key=lambda shard: (shard.input.role, shard.input.source, shard.input.container.path))

    def _indexed(self) -> pl.DataFrame:
        """All lines of all indexes, shard after shard, with what is known of their shard."""
        index = _scan(
            self._files(self._readable, None), ("key", "image_hash", "content_hash", "index_reason")
        ).collect()
        number = np.repeat(np.arange(len(self._readable)), [shard.samples for shard in self._readable])
        if len(number) != len(index):
            raise ContractError(
                f"the indexes hold {len(index)} lines for {len(number)} samples that were counted when they were read"
            )
        facts = {
            "role": [shard.input.role for shard in self._readable],
            "source": [shard.input.source for shard in self._readable],
            "digest": [shard.digest for shard in self._readable],
            "shard": [shard.input.container.path for shard in self._readable],
        }
        of_shard = pl.DataFrame(facts).select(pl.all().gather(pl.Series(number)))
        row = pl.int_range(pl.len(), dtype=pl.Int64).over(pl.Series(number)).alias("row")
        return pl.concat([index.with_columns(row), of_shard], how="horizontal")

    def of_role(self, role: str) -> list[Shard]:
        """A role's readable shards, in file order."""
        return [shard for shard in self._readable if shard.input.role == role]

    def scores(self, role: str, columns: Sequence[str], only: slice = slice(None)) -> pl.LazyFrame:
        """Lazy (uid, source, *columns) of every sample of a role, or of some of `of_role`'s shards; in any order."""
        shards = self.of_role(role)[only]
        if not shards:
            return pl.LazyFrame(schema={"uid": pl.String, "source": pl.String})
        writers = {name: stage.name for stage in self.resolved.stages for name in _written(stage)}
        wanted: dict[str | None, list[str]] = {}
        for column in columns:
            wanted.setdefault(None if column in INDEX_COLUMNS else writers[column], []).append(column)
        scans = [_scan(self._files(shards, kind), names) for kind, names in wanted.items()]
        # Line i of a sidecar belongs to line i of its index, and files are read in the order they are named.
        return pl.concat([self.lines_of(role, only).lazy(), *scans], how="horizontal")

    def lines_of(self, role: str, only: slice = slice(None)) -> pl.DataFrame:
        """(uid, source) of every sample of a role, or of some of `of_role`'s shards, as their indexes list them."""
        shards = self.of_role(role)
        before = sum(shard.samples for shard in shards[: only.start or 0])
        return self._in_file_order(role)[before : before + sum(shard.samples for shard in shards[only])]

    def _in_file_order(self, role: str) -> pl.DataFrame:
        """(uid, source) of a role's samples as their indexes list them."""
        if role not in self._file_order:
            of_role = self.samples.filter(pl.col("role") == role)
            self._file_order[role] = of_role.sort("source", "shard", "row").select("uid", "source")
        return self._file_order[role]

    def _files(self, shards: Sequence[Shard], kind: str | None) -> list[Path]:
        """Per shard the sidecar of a stage, or its index."""
        resolved = self.resolved
        folders = (resolved.address(kind, s.input.source) if kind else s.input.index_address for s in shards)
        return [
            resolved.workspace.sidecar(folder, str(shard.digest)) for folder, shard in zip(folders, shards, strict=True)
        ]

    def pool_fingerprint(self, role: str = POOL_ROLE) -> str:
        """Content address of all readable shards of a role."""
        of_role = [s for s in self.shards if s.input.role == role]
        return pool_fingerprint((s.input.source, s.digest or f"unreadable: {s.reason}") for s in of_role)

    def counted(self) -> int:
        """Samples by the containers' own count, taken while they were read; an unreadable shard counts as one."""
        return sum(lines(shard) for shard in self.shards)


def lines(shard: Shard) -> int:
    """Ledger lines of a shard: its samples, or one for a shard that cannot be read."""
    return shard.samples if shard.digest is not None else 1


def _written(stage: Stage) -> list[str]:
    return [*(field.name for field in stage.writes), stage.reason_column().name]


def _scan(files: list[Path], columns: Sequence[str]) -> pl.LazyFrame:
    """Some columns of many files of one kind; the schema is read once, not from each of a hundred thousand."""
    schema = pl.scan_parquet(files[0]).collect_schema()
    return pl.scan_parquet(files, schema=schema).select(columns)

"""The tables a user can rely on: what stands in the workspace's Parquet files."""

from collections.abc import Iterable

import pyarrow as pa

from schemas.columns import CAPTION, CONTENT_HASH, IMAGE_HASH, KEY

KEPT, DROPPED, QUARANTINED = "kept", "dropped", "quarantined"
STATUSES = (KEPT, DROPPED, QUARANTINED)

POOL_ROLE, TARGET_ROLE, EVAL_ROLE, REFERENCE_ROLE = "pool", "target", "eval", "reference"

# pool.parquet: one row per input shard; (path, size, stamp, reading) -> digest is remembered here.
POOL = pa.schema(
    [
        ("source", pa.string()),
        ("role", pa.string()),  # pool, target, eval or reference
        ("path", pa.string()),
        ("size", pa.int64()),  # bytes
        ("stamp", pa.string()),  # modification time in ns, or the store's etag
        ("reading", pa.string()),  # format and settings it is read with: column names, for Parquet and folders
        ("digest", pa.string()),  # BLAKE3 of its bytes, images beside it and settings included; null: unreadable
        ("samples", pa.int64()),  # index rows, quarantined ones included
        ("reason", pa.string()),  # why the shard cannot be read; null when it can
    ]
)

MEMBER = pa.struct([("name", pa.string()), ("offset", pa.int64()), ("size", pa.int64())])

# The index sidecar: line i is sample i of the shard. `start` and `stop` account for the container: byte offsets
# in a tar (headers and padding included), row numbers in Parquet, positions in a folder's table. The ranges of
# all lines, with the container's end marker, add up to the container.
INDEX = pa.schema(
    [
        KEY,
        CAPTION,
        pa.field("image_member", pa.string()),  # the member that holds the image, by name
        pa.field("members", pa.list_(MEMBER)),  # data offsets and sizes; offsets are in the decompressed tar
        pa.field("start", pa.int64()),
        pa.field("stop", pa.int64()),
        IMAGE_HASH,
        CONTENT_HASH,
        pa.field("index_reason", pa.string()),
    ]
)

# runs/<run>/ledger/*.parquet: every sample of pool, target, eval and reference sets once.
LEDGER = pa.schema(
    [
        ("uid", pa.string()),
        ("role", pa.string()),
        ("source", pa.string()),
        ("shard", pa.string()),
        ("row", pa.int64()),
        ("key", pa.string()),
        ("status", pa.string()),
        ("decided_by", pa.string()),  # ingest, a score step, holdout, a rule (see `step_names`) or mix; else the role
        ("reason", pa.string()),
        ("duplicate_of", pa.string()),
        ("similarity", pa.float64()),  # to duplicate_of: a cosine, a Jaccard index, a share of equal bits; 1 for equals
        ("score", pa.float64()),  # what the last selector that saw the row ranked it by; highest first
        ("importance", pa.float64()),  # that score without its noise; null where no noise had a part in it
        ("weight", pa.float64()),
        ("repeats", pa.int32()),
    ]
)

# selection/<fp>.parquet: what the export draws, in canonical (uid) order.
SELECTION = pa.schema(
    [
        ("uid", pa.string()),
        ("source", pa.string()),
        ("shard", pa.string()),
        ("row", pa.int64()),
        ("weight", pa.float64()),
        ("repeats", pa.int32()),
    ]
)

# runs/<run>/choices/<selector>.parquet: what a selector of a comparison decided about every row, in uid order.
CHOICES = pa.schema(
    [
        ("uid", pa.string()),
        ("source", pa.string()),
        ("kept", pa.bool_()),
        ("reason", pa.string()),  # why not; null for kept rows
        ("score", pa.float64()),  # what it ranked by, the highest first; null for rows that it could not rank
        ("importance", pa.float64()),  # the score without its noise; null where it does not draw
    ]
)

# export/<name>/members.parquet: where each exported sample came from.
MEMBERS = pa.schema(
    [
        ("exported_key", pa.string()),
        ("exported_shard", pa.string()),
        ("uid", pa.string()),
        ("source", pa.string()),
        ("shard", pa.string()),
        ("key", pa.string()),
    ]
)

NEW_PART, REPLAY_PART = "new", "kept"

# runs/<run>/continual.parquet: of a run that re-curates, what is new in its export and what was in the one before.
CONTINUAL = pa.schema(
    [
        ("exported_key", pa.string()),
        ("exported_shard", pa.string()),
        ("part", pa.string()),  # new or kept
    ]
)

# trials.parquet, or a CSV with the same columns: one row per pilot run. These columns, then `share.SOURCE` for every
# source and `METRIC.HELDOUT` for everything measured (lower is better; null: not measured), all float64, by name.
TRIALS = pa.schema(
    [
        ("trial", pa.string()),  # what the run is called; several seeds or budgets of one mixture may share it
        ("budget", pa.int64()),  # samples drawn, repeats included; 0: unknown
        ("seed", pa.int64()),
    ]
)
TRIAL_SHARE = "share."
"""Prefix of the columns that say how much of a source a trial drew; a row's shares sum to 1."""


def trials_schema(sources: Iterable[str], metrics: Iterable[str]) -> pa.Schema:
    """The columns of one trials table: TRIALS, the sources' shares and the metrics, each sorted by name."""
    names = [*(TRIAL_SHARE + source for source in sorted(sources)), *sorted(metrics)]
    return pa.schema([*TRIALS, *(pa.field(name, pa.float64()) for name in names)])

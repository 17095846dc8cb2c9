"""members.parquet beside exported tars: which source each of their samples comes from."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq

from stages.train.options.concepts import SOURCE
from stages.train.samples import Pair

MEMBERS = "members.parquet"


def with_sources(pairs: Iterator[Pair], tars: Sequence[str]) -> Iterator[Pair]:
    """Samples of tars with the column `source`, where a members.parquet in a tar's folder or the one above has it."""
    known = _sources(tars)
    for pair in pairs:
        source = known.get(pair.key)
        yield pair if source is None else replace(pair, columns={**pair.columns, SOURCE: source})


def _sources(tars: Sequence[str]) -> dict[str, str]:
    folders = {folder for tar in tars for folder in list(Path(tar).parents)[:2]}
    found: dict[str, str] = {}
    for path in sorted(folder / MEMBERS for folder in folders if (folder / MEMBERS).is_file()):
        table = pq.read_table(path, columns=["exported_key", SOURCE])
        found |= dict(zip(table["exported_key"].to_pylist(), table[SOURCE].to_pylist(), strict=True))
    return found

"""The plan's lines of one output shard as columns, and from where to where the bytes of their members go."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
import xxhash

from pipeline.export.block import Block
from pipeline.export.direct import Room
from pipeline.shards.ranges import Target
from pipeline.shards.rows import fact, hash_of_facts, split_names
from schemas.columns import CAPTIONS

WINDOW_BYTES = 128 << 20
"""What is held of an output shard at a time."""


@dataclass(frozen=True)
class Planned:
    """Samples in output order: lists of n, members in arrays of m, sample by sample, sorted by suffix."""

    keys: list[str]
    places: list[str]
    rows: list[int]
    hashes: list[str | None]
    """What the content of each hashed to when it was indexed."""
    given: list[dict[str, Any]]
    """Columns that stand in the plan."""
    borders: npt.NDArray[np.int64]
    """(n + 1,) where the members of each begin, and the last one's end."""
    suffixes: list[str]
    offsets: npt.NDArray[np.int64]
    """(m,) in the place's container."""
    sizes: npt.NDArray[np.int64]

    def windows(self) -> Iterator["Planned"]:
        """Consecutive parts that end with the sample that exceeds `WINDOW_BYTES`."""
        sizes = np.concatenate([[0], np.cumsum(self.sizes)])[self.borders]
        first = 0
        while first < len(self.keys):
            stop = min(int(np.searchsorted(sizes, sizes[first] + WINDOW_BYTES, side="right")), len(self.keys))
            yield self._part(first, stop)
            first = stop

    def _part(self, first: int, stop: int) -> "Planned":
        start, end = self.borders[[first, stop]].tolist()
        return Planned(
            keys=self.keys[first:stop],
            places=self.places[first:stop],
            rows=self.rows[first:stop],
            hashes=self.hashes[first:stop],
            given=self.given[first:stop],
            borders=self.borders[first : stop + 1] - start,
            suffixes=self.suffixes[start:end],
            offsets=self.offsets[start:end],
            sizes=self.sizes[start:end],
        )

    def block(self, scores: list[dict[str, Any]], room: Room) -> Block:
        """A place for all of them; `scores` go along."""
        suffixes = [self.suffixes[start:end] for start, end in pairwise(self.borders.tolist())]
        return Block(self.keys, suffixes, self.sizes, scores, room)

    def targets(self, block: Block) -> dict[str, list[Target]]:
        """Place -> what to read and where in the block it belongs.

        Members of a sample that are as far from each other in their container as in the block are read at once, with
        what stands between them.
        """
        of_sample = np.repeat(np.arange(len(self.keys)), np.diff(self.borders))
        apart = np.diff(self.offsets) != np.diff(block.starts)
        apart |= np.diff(of_sample) > 0
        heads = np.flatnonzero(np.append(True, apart)[: len(self.sizes)])
        lasts = np.append(heads[1:], len(self.sizes))[: len(heads)] - 1
        stops = (block.starts + self.sizes)[lasts]
        columns = (of_sample[heads], self.offsets[heads], block.starts[heads], stops)
        content = block.content.data
        targets: dict[str, list[Target]] = {}
        for sample, offset, start, stop in zip(*(column.tolist() for column in columns), strict=True):
            targets.setdefault(self.places[sample], []).append((offset, content[start:stop]))
        return targets

    def differing(self, block: Block) -> str | None:
        """Place of a sample whose bytes in the block are not those that were indexed; None where there is none."""
        digests = map(xxhash.xxh3_128_hexdigest, block.views())
        facts = [fact(*one) for one in zip(self.suffixes, self.sizes.tolist(), digests, strict=True)]
        found = (hash_of_facts(facts[first:stop]) for first, stop in pairwise(self.borders.tolist()))
        of_samples = zip(self.places, self.hashes, found, strict=True)
        return next((place for place, expected, content in of_samples if content != expected), None)


def read_planned(lines: pa.Table) -> Planned:
    """The plan's lines, whose members stand as their container has them."""
    lists = lines["members"].combine_chunks()
    counts = lists.value_lengths().fill_null(0).to_numpy()
    flat = lists.flatten()
    _, suffixes = split_names(pl.Series(flat.field(0)).to_list())
    ranks = {suffix: rank for rank, suffix in enumerate(sorted(set(suffixes)))}
    rank = np.fromiter(map(ranks.__getitem__, suffixes), np.int64, len(suffixes))
    offsets, sizes = (flat.field(place).to_numpy() for place in (1, 2))
    of_sample = np.repeat(np.arange(len(counts)), counts)
    order = np.lexsort((sizes, offsets, rank, of_sample))
    columns = ("exported_key", "place", "row", "content_hash")
    keys, places, rows, hashes = (pl.Series(lines[column]).to_list() for column in columns)
    return Planned(
        keys,
        places,
        rows,
        hashes,
        _given(lines),
        borders=np.concatenate([[0], np.cumsum(counts)]),
        suffixes=[suffixes[place] for place in order.tolist()],
        offsets=offsets[order],
        sizes=sizes[order],
    )


def _given(lines: pa.Table) -> list[dict[str, Any]]:
    if CAPTIONS.name not in lines.schema.names:
        return [{}] * lines.num_rows
    return [{CAPTIONS.name: captions} for captions in lines[CAPTIONS.name].to_pylist()]

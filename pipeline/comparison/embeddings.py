"""Distance to the target and diversity of every selection, from image embeddings, in one pass over the pool.

All sums are of numbers on a grid that float64 holds exactly, so how the pool is cut into parts does not show.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add

import numpy as np
import numpy.typing as npt
import polars as pl

from pipeline.comparison.selections import Selections, by_yardstick
from schemas.columns import IMAGE_EMBEDDING
from schemas.errors import CuveeError
from stages.atoms import ROWS_PER_ATOM, Atoms, quantise, unit_rows
from stages.clusters import fit_centroids, nearest_centroids, training_rows
from stages.measures.target_distance import target_distance
from stages.measures.vendi import moments, vendi_score
from stages.vectors import Doubles, Vectors, blocks, unit, vectors

Integers = npt.NDArray[np.int64]

COLUMN = IMAGE_EMBEDDING.name
ATOMS = 256
"""Cells of the pool and atoms of the target, at most."""
PURPOSE = "comparison"
BLOCK_ROWS = 16_384


@dataclass(frozen=True)
class Placed:
    """Where the rows of m selections lie, of a part of the pool or of all of it."""

    counts: Integers
    """(m, k) rows in each cell."""
    sums: Doubles
    """(k, d) of all rows in each cell."""
    moments: Doubles
    """(m, d, d) see `stages.measures.vendi`."""

    def __add__(self, other: "Placed") -> "Placed":
        """Of both parts together."""
        return Placed(self.counts + other.counts, self.sums + other.sums, self.moments + other.moments)


def embedding_measures(selections: Selections) -> list[dict[str, float | None]]:
    """Per selection `diversity` (Vendi score), `distance` (see `by_yardstick`; with a target) and `embedded` rows.

    A selection without an embedded row has a diversity of 0 and no distance.

    Raises:
        CuveeError: no survivor, or no sample of the target, has an embedding.
    """
    centres, columns = _centres(selections), selections.columns()
    parts = selections.each_part(COLUMN, lambda part: _placed(part, columns, centres))
    placed = reduce(add, parts)
    found: list[dict[str, float | None]] = [
        {"diversity": vendi_score(own) if own.any() else 0.0, "embedded": int(counts.sum())}
        for own, counts in zip(placed.moments, placed.counts, strict=True)
    ]
    for line, more in zip(found, _distances(selections, placed), strict=True):
        line |= more
    return found


def _centres(selections: Selections) -> Vectors:
    """(k, d) of spherical k-means on the rows with the smallest hash(seed, uid)."""
    rows = selections.rows(COLUMN).filter(pl.col(COLUMN).is_not_null())
    uids = rows.select("uid").collect()["uid"].sort()
    if uids.is_empty():
        raise CuveeError(f"compare: no survivor has a value in {COLUMN!r}")
    k = max(1, min(ATOMS, len(uids) // ROWS_PER_ATOM))
    taught = uids.gather(training_rows(uids.to_list(), k, selections.seed, PURPOSE)).to_frame()
    table = rows.join(taught.lazy(), on="uid", how="semi").collect().sort("uid")
    return fit_centroids(_unit(table), table["uid"].to_list(), k, selections.seed, PURPOSE)


def _unit(table: pl.DataFrame) -> Vectors:
    return unit(vectors(table[COLUMN].to_arrow()).astype(np.float64)).astype(np.float16)


def _placed(part: pl.DataFrame, columns: Sequence[str], centres: Vectors) -> Placed:
    part = part.drop_nulls(COLUMN)
    k, d = centres.shape
    total = Placed(np.zeros((len(columns), k), np.int64), np.zeros((k, d)), np.zeros((len(columns), d, d)))
    for block in blocks(len(part), BLOCK_ROWS):
        _add_block(total, part[block], columns, centres)
    return total


def _add_block(total: Placed, part: pl.DataFrame, columns: Sequence[str], centres: Vectors) -> None:
    """In place: the moments of all selections take megabytes."""
    rows = _unit(part)
    if rows.shape[1] != centres.shape[1]:
        raise CuveeError(
            f"{COLUMN!r} has rows of {rows.shape[1]} and of {centres.shape[1]} numbers; were models mixed?"
        )
    (cell, _), k = nearest_centroids(rows, centres), len(centres)
    np.add.at(total.sums, cell, rows.astype(np.float64))
    for number, name in enumerate(columns):
        mask = part[name].to_numpy()
        total.counts[number] += np.bincount(cell[mask], minlength=k)
        total.moments[number] += moments(rows[mask])


def _distances(selections: Selections, placed: Placed) -> list[dict[str, float | None]]:
    held = placed.counts[0]  # of the whole pool: all selections are measured at its means
    points = placed.sums / np.maximum(held, 1)[:, None]
    targets = {name: _atoms(selections, name) for name in selections.yardsticks}
    if not targets:
        return [{} for _ in placed.counts]
    return by_yardstick(
        "distance",
        {name: [target_distance(counts, points, atoms) for counts in placed.counts] for name, atoms in targets.items()},
    )


def _atoms(selections: Selections, yardstick: str) -> Atoms:
    table = selections.target(yardstick, COLUMN).drop_nulls(COLUMN)
    rows = unit_rows([_unit(table).astype(np.float32)], f"compare: the target ({yardstick})")
    return quantise(rows, np.ones(len(rows)), table["uid"].to_list(), ATOMS, selections.seed)

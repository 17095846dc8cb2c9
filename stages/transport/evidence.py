"""How far a selection is from the target, beside a random one; what its scores look like."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl

from stages.rule import Context
from stages.transport.distances import squared_distances
from stages.transport.duals import transport
from stages.transport.sample import rows_named, sample
from stages.transport.space import Space
from stages.vectors import Doubles, Vectors

COMPARED = 500
"""Rows of each side at most: distances of samples fall with their size, so sizes must be alike."""
BINS = 40
LEAST_SPREAD = 1e-6
"""Of values that are all alike, relative to them: numbers nearer to each other make no bins."""


def distances_to_target(
    rows: pl.LazyFrame, context: Context, space: Space, atoms: Vectors, kept: pl.Series, eligible: pl.Series
) -> dict[str, Any]:
    """Exact transport costs to the target's atoms (m, d) of as many rows each: kept, random, and of the pool.

    Args:
        rows: of the pool.
        context: of the rule.
        space: of the atoms.
        atoms: of the target.
        kept: uids of the selection.
        eligible: uids of all that could be kept.
    """
    count = min(len(kept), COMPARED)
    seed = context.seed
    drawn = {
        "selected": sample(kept.to_frame("uid"), count, seed, "compared selection"),
        "random": sample(eligible.to_frame("uid"), count, seed, "compared random"),
        "pool": sample(eligible.to_frame("uid"), COMPARED, seed, "compared pool"),
    }
    table = rows_named(rows, context, space.columns, pl.concat([found["uid"] for found in drawn.values()]).unique())
    costs = {
        name: transport(squared_distances(_points(table, found, space), atoms, space.joined)).value
        for name, found in drawn.items()
    }
    return {**costs, "rows": {name: len(found) for name, found in drawn.items()}, "atoms": len(atoms)}


def histogram(values: Doubles) -> Mapping[str, list[float]]:
    """Counts of values in equal bins from the least to the largest."""
    least = float(values.min(initial=0.0 if not len(values) else np.inf))
    spread = max(float(values.max(initial=least)) - least, LEAST_SPREAD * max(abs(least), 1.0))
    counts, edges = np.histogram(values, BINS, (least, least + spread))
    return {"edges": edges.tolist(), "counts": counts.tolist()}


def _points(table: pl.DataFrame, uids: pl.DataFrame, space: Space) -> Vectors:
    return space(table.join(uids, on="uid", how="semi"), "the pool")

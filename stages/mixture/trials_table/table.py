"""The table in memory, and its one way onto the disk."""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from schemas.errors import ContractError
from schemas.tables import trials_schema

Doubles = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

SAME = 9
"""Decimals in which the shares of two runs agree that are of one mixture."""


@dataclass(frozen=True, eq=False)
class TrialsTable:
    """Pilot runs, each once, in canonical order: by budget, mixture, seed, name."""

    sources: tuple[str, ...]
    """(S,) sorted."""
    metrics: tuple[str, ...]
    """(M,) `METRIC.HELDOUT`, sorted; lower is better."""
    trials: tuple[str, ...]
    """(n,) what the runs are called; not unique."""
    budgets: Integers
    """(n,) samples drawn; 0: unknown."""
    seeds: Integers
    """(n,)"""
    shares: Doubles
    """(n, S) points on the simplex."""
    values: Doubles
    """(n, M) measured; NaN where a run has no number for a metric."""
    notes: tuple[str, ...] = ()
    """What was mended while reading: sentences for the record and the report."""

    def __post_init__(self) -> None:
        n, shapes = len(self.trials), (self.shares.shape, self.values.shape)
        if shapes != ((n, len(self.sources)), (n, len(self.metrics))):
            raise ContractError(f"expected shares and values of {n} trials by source and metric, found {shapes}")


def mixture_ids(shares: Doubles) -> Integers:
    """(n,) numbers from 0: equal ones for equal mixtures (n, S), whatever their seeds and budgets."""
    ids: Integers = np.unique(shares.round(SAME) + 0.0, axis=0, return_inverse=True)[1].reshape(-1).astype(np.int64)
    return ids


def canonical(table: TrialsTable) -> TrialsTable:
    """The same runs, sources and metrics in canonical order."""
    across = np.argsort(np.array(table.sources, object), kind="stable")
    columns = np.argsort(np.array(table.metrics, object), kind="stable")
    shares, values = table.shares[:, across], table.values[:, columns]
    names = np.argsort(np.argsort(np.array(table.trials, object), kind="stable"), kind="stable")
    order = np.lexsort((names, table.seeds, *reversed(shares.round(SAME).T), table.budgets))
    return TrialsTable(
        tuple(table.sources[i] for i in across),
        tuple(table.metrics[i] for i in columns),
        tuple(table.trials[i] for i in order),
        table.budgets[order],
        table.seeds[order],
        shares[order],
        values[order],
        table.notes,
    )


def write_trials(table: TrialsTable, path: Path) -> None:
    """Write Parquet: the same runs in any order are the same bytes; the file appears whole or not at all."""
    table = canonical(table)
    columns = [
        pa.array(table.trials, pa.string()),
        pa.array(table.budgets),
        pa.array(table.seeds),
        *(pa.array(np.ascontiguousarray(column)) for column in table.shares.T),
        *(pa.array(np.ascontiguousarray(column), mask=np.isnan(column)) for column in table.values.T),
    ]
    schema = trials_schema(table.sources, table.metrics)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.unfinished")
    pq.write_table(pa.table(columns, schema=schema), unfinished)
    unfinished.replace(path)

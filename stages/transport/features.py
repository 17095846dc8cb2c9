"""Embedding columns as unit vectors in half precision, between which squared distances are exact."""

from collections.abc import Sequence
from typing import Annotated

import numpy as np
import polars as pl
import pyarrow as pa
from pydantic import AfterValidator

from schemas.columns import COLUMNS, IMAGE_EMBEDDING
from schemas.errors import ContractError, CuveeError
from stages.vectors import Vectors, blocks, vectors

BLOCK_ROWS = 4096
MOST_COLUMNS = 8
"""Squared distances of joined vectors stay below 32, so that 53 bits hold them."""


def _embeddings(column: str | tuple[str, ...]) -> str | tuple[str, ...]:
    names = (column,) if isinstance(column, str) else column
    if not names or len(set(names)) != len(names) or len(names) > MOST_COLUMNS:
        raise ValueError(f"found {column!r}; name an embedding column, or up to {MOST_COLUMNS} different ones")
    for known in (COLUMNS[name] for name in names if name in COLUMNS):
        if not (pa.types.is_list(known.type) or pa.types.is_large_list(known.type)):
            raise ValueError(f"column {known.name!r} holds {known.type}, no embeddings; try {IMAGE_EMBEDDING.name!r}")
    return column


EmbeddingColumns = Annotated[str | tuple[str, ...], AfterValidator(_embeddings)]
"""One embedding column, or several whose unit vectors are joined: their costs are averaged."""


def column_names(column: str | tuple[str, ...]) -> tuple[str, ...]:
    """The names as a tuple."""
    return (column,) if isinstance(column, str) else column


def features(table: pl.DataFrame, columns: Sequence[str]) -> Vectors:
    """(n, sum of widths): each column's rows divided by their norms, as float16, side by side.

    Raises:
        CuveeError: embeddings of unequal length.
        ContractError: a row that is all zeros or not finite.
    """
    found = [_unit(vectors(table[name].to_arrow()), name) for name in columns]
    return np.concatenate(found, axis=1) if len(found) > 1 else found[0]


def whole(table: pl.DataFrame, columns: Sequence[str]) -> pl.DataFrame:
    """The rows that have all of these columns."""
    return table.drop_nulls(list(columns))


def same_width(rows: Vectors, width: int, who: str) -> Vectors:
    """The rows, if they are of this width.

    Raises:
        CuveeError: they are not.
    """
    if len(rows) and rows.shape[1] != width:
        raise CuveeError(
            f"{who} has embeddings of {rows.shape[1]} numbers, the target of {width}; score both with one model"
        )
    return rows


def _unit(rows: Vectors, name: str) -> Vectors:
    found = np.empty_like(rows)
    for part in blocks(len(rows), BLOCK_ROWS):
        wide = rows[part].astype(np.float64)
        norms = np.sqrt(np.square(wide).sum(axis=1, keepdims=True))
        if not (np.isfinite(norms) & (norms > 0)).all():
            raise ContractError(f"column {name!r} holds an embedding that is all zeros or not finite")
        found[part] = wide / norms
    return found

"""Embedding columns as matrices, and their dot products to the last bit.

A product of two float16 numbers is a multiple of 2^-48, and a sum of them over two unit vectors stays below 2: 49 bits.
So float64 holds every partial sum exactly, and neither blocks nor BLAS threads nor fused multiply-adds change a bit.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from schemas.errors import CuveeError, RecipeError

Vectors = npt.NDArray[np.float16]
Doubles = npt.NDArray[np.float64]

MISSING_INPUT = "missing_input"
NORMS_AT_ONCE = 1024


def vectors(column: pa.Array, width: int = 0) -> Vectors:
    """(n, d) of a list column without nulls; (0, width) of an empty one.

    Raises:
        CuveeError: lists of unequal length.
    """
    lengths = np.unique(column.value_lengths().to_numpy(zero_copy_only=False)).tolist() or [width]
    if len(lengths) > 1:
        raise CuveeError(f"embeddings of {lengths} numbers in one column; were two models mixed?")
    numbers = column.flatten().to_numpy(zero_copy_only=False)
    matrix: Vectors = numbers.astype(np.float16, copy=False).reshape(len(column), lengths[0])
    return matrix


def known_rows(column: pa.Array, width: int, who: str) -> tuple[Doubles, npt.NDArray[np.bool_]]:
    """The rows (k, width) of a list column that are there, in float64, and per row of the column whether it is (n,).

    Raises:
        RecipeError: a row of another length: the embeddings are of another model than what `who` brings.
    """
    there = column.is_valid().to_numpy(zero_copy_only=False)
    lengths = pc.list_value_length(column).drop_null().to_numpy()
    if wrong := sorted({int(length) for length in lengths} - {width}):
        raise RecipeError(
            f"{who}: found embeddings of {wrong[0]} numbers, expected {width}; name what was made for this model"
        )
    rows: Doubles = column.flatten().to_numpy(zero_copy_only=False).astype(np.float64)
    return rows.reshape(-1, width), there


def dots(one: Vectors, other: Vectors) -> Doubles:
    """(n, m) exact dot products of (n, d) and (m, d) rows."""
    found: Doubles = one.astype(np.float64) @ other.astype(np.float64).T
    return found


def row_dots(one: Vectors, other: Vectors) -> Doubles:
    """(n,) exact dot products of the rows of two (n, d) matrices."""
    found: Doubles = np.multiply(one, other, dtype=np.float64).sum(axis=1)
    return found


def norms(rows: Vectors) -> Doubles:
    """(n,) Euclidean lengths of (n, d) rows."""
    lengths = np.zeros(len(rows))
    for block in blocks(len(rows), NORMS_AT_ONCE):
        lengths[block] = np.sqrt(np.square(rows[block], dtype=np.float64).sum(axis=1))
    return lengths


def cosines(one: Vectors, other: Vectors) -> Doubles:
    """(n, m) cosines of (n, d) and (m, d) rows, in [-1, 1] but for the last bit: only the division rounds, once.

    0 for rows of zeros.
    """
    return _divided(dots(one, other), np.outer(norms(one), norms(other)))


def pair_cosines(one: Vectors, other: Vectors) -> Doubles:
    """(n,) cosines of the rows of two (n, d) matrices: the same bits as in `cosines`."""
    return _divided(row_dots(one, other), norms(one) * norms(other))


def cosines_with(rows: Vectors, others: Vectors, named: npt.NDArray[np.int64]) -> Doubles:
    """(n, c) cosines of each row (n, d) with those of the others (m, d) that are named for it (n, c)."""
    found = np.einsum("nd,ncd->nc", rows.astype(np.float64), others[named].astype(np.float64))
    return _divided(found, norms(rows)[:, None] * norms(others)[named])


def _divided(products: Doubles, lengths: Doubles) -> Doubles:
    found: Doubles = np.divide(products, lengths, out=np.zeros_like(products), where=lengths > 0)
    return found


def unit(rows: Doubles) -> Doubles:
    """Rows divided by their norms; rows of zeros stay."""
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(np.divide(rows, norms, out=np.zeros_like(rows), where=norms > 0))


def softmax(rows: Doubles) -> Doubles:
    """exp(row) / sum(exp(row)) of each row, without overflow."""
    powers = np.exp(rows - rows.max(axis=1, keepdims=True, initial=-np.inf))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def blocks(n: int, rows: int) -> list[slice]:
    """n rows in slices of at most `rows`."""
    return [slice(at, min(at + rows, n)) for at in range(0, n, rows)]


def whole_rows(columns: Sequence[pa.Array]) -> npt.NDArray[np.bool_]:
    """(n,) whether a row has a value in every one of these columns."""
    valid = [column.is_valid().to_numpy(zero_copy_only=False) for column in columns]
    whole: npt.NDArray[np.bool_] = np.logical_and.reduce(valid)
    return whole


def scored(values: npt.ArrayLike, whole: npt.NDArray[np.bool_], dtype: pa.DataType) -> pa.Array:
    """A column with the values of the whole rows, in order, and null for the others."""
    spread = np.zeros(len(whole), dtype.to_pandas_dtype())
    spread[whole] = values
    return pa.array(spread, dtype, mask=~whole)


def reasons(whole: npt.NDArray[np.bool_]) -> pa.Array:
    """The reason column: `missing_input` for rows that lack one, null for the others."""
    return pa.array([None if sound else MISSING_INPUT for sound in whole], pa.string())

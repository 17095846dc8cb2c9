"""Embedding columns as matrices, and their dot products to the last bit.

A product of two float16 numbers is a multiple of 2^-48, and a sum of them over two unit vectors stays below 2: 49 bits.
So float64 holds every partial sum exactly, and neither blocks nor BLAS threads nor fused multiply-adds change a bit.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from schemas.errors import CuveeError

Vectors = npt.NDArray[np.float16]
Doubles = npt.NDArray[np.float64]

MISSING_INPUT = "missing_input"


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


def dots(one: Vectors, other: Vectors) -> Doubles:
    """(n, m) exact dot products of (n, d) and (m, d) rows."""
    found: Doubles = one.astype(np.float64) @ other.astype(np.float64).T
    return found


def row_dots(one: Vectors, other: Vectors) -> Doubles:
    """(n,) exact dot products of the rows of two (n, d) matrices."""
    found: Doubles = np.multiply(one, other, dtype=np.float64).sum(axis=1)
    return found


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

"""Embedding columns as matrices, and back."""

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from schemas.errors import RecipeError

Floats64 = npt.NDArray[np.float64]


def known_rows(column: pa.Array, width: int, who: str) -> tuple[Floats64, npt.NDArray[np.bool_]]:
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
    rows: Floats64 = column.flatten().to_numpy(zero_copy_only=False).astype(np.float64)
    return rows.reshape(-1, width), there


def unit(rows: Floats64) -> Floats64:
    """Rows divided by their norms; rows of zeros stay."""
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(np.divide(rows, norms, out=np.zeros_like(rows), where=norms > 0))


def softmax(rows: Floats64) -> Floats64:
    """exp(row) / sum(exp(row)) of each row, without overflow."""
    powers = np.exp(rows - rows.max(axis=1, keepdims=True, initial=-np.inf))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def spread(values: Floats64, there: npt.NDArray[np.bool_], dtype: pa.DataType) -> pa.Array:
    """Values of the rows that are there as a column over all rows, null elsewhere and where they are not finite."""
    column = np.full(len(there), np.nan)
    column[there] = values
    with np.errstate(over="ignore"):
        numbers = column.astype(dtype.to_pandas_dtype())
    return pa.array(numbers, dtype, mask=~np.isfinite(numbers))

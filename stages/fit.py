"""What a rule or a mixer learned from many rows, apart from what it decided with it."""

import json
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from schemas.errors import ContractError

Array = npt.NDArray[Any]
DTYPES = (np.float64, np.float32, np.float16, np.int64)


@dataclass(frozen=True, eq=False)
class Fit:
    """Named arrays and small facts: enough to decide about any row without the rows it was learned from.

    Raises:
        ContractError: an array of another type than float64, float32, float16 or int64, or facts that are no JSON.
    """

    arrays: dict[str, Array] = field(default_factory=dict)
    """What is large: vectors, matrices."""
    facts: dict[str, Any] = field(default_factory=dict)
    """What is small: plain JSON values, kept to the last bit."""

    def __post_init__(self) -> None:
        for name, array in self.arrays.items():
            if array.dtype not in DTYPES:
                raise ContractError(
                    f"fit array {name!r} holds {array.dtype}; expected one of float64, float32, float16, int64"
                )
        try:
            json.dumps(self.facts, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise ContractError(f"the facts of a fit are no plain JSON: {error}") from error

    def __eq__(self, other: object) -> bool:
        """Equal facts and arrays of equal bits."""
        if not isinstance(other, Fit) or self.facts != other.facts or self.arrays.keys() != other.arrays.keys():
            return False
        return all(_same(array, other.arrays[name]) for name, array in self.arrays.items())


def _same(one: Array, other: Array) -> bool:
    return (one.dtype, one.shape, one.tobytes()) == (other.dtype, other.shape, other.tobytes())

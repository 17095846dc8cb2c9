"""What kernel alignments are made of: neighbours, and the Hilbert-Schmidt independence criterion."""

import numpy as np
import numpy.typing as npt

from schemas.errors import CuveeError
from stages.train.metrics.ima import unit_rows

Doubles = npt.NDArray[np.float64]
Booleans = npt.NDArray[np.bool_]


def gram(states: Doubles) -> Doubles:
    """(n, n) cosines of (n, d) states."""
    unit = unit_rows(states)
    return unit @ unit.T


def neighbours(kernel: Doubles, k: int) -> Booleans:
    """(n, n) whether column j is one of row i's k nearest by the kernel, itself excluded; of equals the first ones."""
    without = kernel.copy()
    np.fill_diagonal(without, -np.inf)
    nearest = np.argsort(-without, axis=1, kind="stable")[:, :k]
    found = np.zeros(kernel.shape, np.bool_)
    np.put_along_axis(found, nearest, True, axis=1)
    return found


def hsic_unbiased(left: Doubles, right: Doubles) -> float:
    """Unbiased HSIC of two (n, n) kernels, n >= 4; K and L below have zero diagonals, 1 is the vector of ones.

    [ tr(K L) + 1'K1 1'L1 / ((n - 1)(n - 2)) - 2 1'K L1 / (n - 2) ] / (n (n - 3))
    """
    n = len(left)
    k, l_ = left - np.diag(np.diag(left)), right - np.diag(np.diag(right))
    trace, sums = float((k * l_.T).sum()), float(k.sum() * l_.sum())
    through = float(k.sum(axis=0) @ l_.sum(axis=1))
    return (trace + sums / ((n - 1) * (n - 2)) - 2 * through / (n - 2)) / (n * (n - 3))


def normalised(cross: float, left: float, right: float) -> float:
    """cross / sqrt(left right); 0 where one of them is not above 0: a kernel without structure is aligned with none."""
    return cross / float(np.sqrt(left * right)) if left > 0 and right > 0 else 0.0


def refuse_few(left: Doubles, right: Doubles, k: int) -> None:
    """Refuse rows without k neighbours each.

    Raises:
        CuveeError: with both counts.
    """
    if len(left) != len(right) or len(left) <= max(k, 3):
        raise CuveeError(
            f"found {len(left)} and {len(right)} paired states, expected the same number and more than {max(k, 3)}; "
            "name more held-out images"
        )

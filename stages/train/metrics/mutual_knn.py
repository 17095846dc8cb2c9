"""Mutual nearest neighbours: do two representations of the same things have the same neighbours? (arXiv:2405.07987)"""

import numpy as np
import numpy.typing as npt

from stages.train.metrics.kernels import gram, neighbours, refuse_few

Doubles = npt.NDArray[np.float64]


def mutual_knn(left: Doubles, right: Doubles, k: int = 10) -> float:
    """(1/n) sum_i |N_k(x_i) and N_k(y_i)| / k of paired (n, d) and (n, e) rows, in [0, 1].

    Neighbours by cosine, the row itself excluded. For unrelated representations k / (n - 1) is expected: `chance`.

    Raises:
        CuveeError: other numbers of rows, or no more than k of them.
    """
    refuse_few(left, right, k)
    return mutual_knn_of_kernels(gram(left), gram(right), k)


def mutual_knn_of_kernels(left: Doubles, right: Doubles, k: int) -> float:
    """The same of (n, n) kernels."""
    return float((neighbours(left, k) & neighbours(right, k)).sum()) / (k * len(left))


def chance(n: int, k: int) -> float:
    """What n rows of unrelated representations have in common on average."""
    return k / (n - 1)

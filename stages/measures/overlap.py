"""How much selections of one pool have in common."""

import numpy as np
import numpy.typing as npt

Masks = npt.NDArray[np.bool_]
Doubles = npt.NDArray[np.float64]


def jaccard(masks: Masks) -> Doubles:
    """(m, m) |A and B| / |A or B| in [0, 1] of m selections, given as (m, n) which rows each keeps; 1 for two empty."""
    sizes = masks.sum(axis=1, dtype=np.int64)
    common = np.array([[np.count_nonzero(one & other) for other in masks] for one in masks], np.int64)
    common = common.reshape(len(masks), len(masks))
    either = sizes[:, None] + sizes - common
    return np.asarray(np.divide(common, either, out=np.ones(either.shape), where=either > 0))


def chance(kept: int, of: int) -> float:
    """The Jaccard index of two sets of `kept` out of `of` rows whose common part is the expected one, kept^2 / of."""
    return kept / (2 * of - kept) if kept else 1.0

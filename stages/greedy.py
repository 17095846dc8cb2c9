"""Which of many rows stay where some pairs of them are close: none is dropped but for one that stays."""

from typing import Protocol

import numpy as np
import numpy.typing as npt

Places = npt.NDArray[np.int64]


class ClosePairs(Protocol):
    """Pairs of positions, each once, sorted by (second, first)."""

    @property
    def first(self) -> Places:
        """(m,) the earlier ones."""
        ...

    @property
    def second(self) -> Places:
        """(m,) the later ones, each greater than its `first`."""
        ...


def greedy_partners(n: int, pairs: ClosePairs) -> Places:
    """(n,) for each position the first kept position close to it and before it, or -1 if it is kept itself.

    One pass in order: a position is dropped only for one that stays, so there are no chains.
    """
    partners = [-1] * n
    for first, second in zip(pairs.first.tolist(), pairs.second.tolist(), strict=True):
        if partners[second] < 0 and partners[first] < 0:
            partners[second] = first
    return np.array(partners, np.int64)


def of_copies(first: Places, group: Places, witness: Places) -> Places:
    """(n,) the partners of rows of which equal ones were taken together, -1 for kept rows.

    Equal rows have the same close rows, so all but the first of them are dropped, and for the same witness.

    Args:
        first: (g,) the first row of each group of equals, ascending.
        group: (n,) the group of each row.
        witness: (g,) the partner of each group among the groups, -1 where its first row is kept.
    """
    kept = np.where(witness < 0, np.arange(len(first)), witness)
    partners: Places = first[kept][group]
    partners[first[witness < 0]] = -1
    return partners

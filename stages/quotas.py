"""How many rows each of several groups gives, and which: exact counts, in proportion, none above what it has."""

import numpy as np
import numpy.typing as npt

from schemas.errors import ContractError

Doubles = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]


def quotas(weights: Doubles, sizes: Integers, total: int) -> Integers:
    """(g,) counts q <= sizes with sum `total`: min(size, c x weight) by largest remainder, with the c that it takes.

    What a full group cannot give goes to the others in proportion to their weights; a weight of 0 gives nothing. Equal
    remainders go to the group that stands first.

    Raises:
        ContractError: the groups with a weight have fewer rows than `total`.
    """
    ideal, able = amounts(weights, sizes, total), weights > 0
    counts = np.floor(ideal).astype(np.int64)
    order = np.argsort(counts - ideal, kind="stable")
    order = order[counts[order] < np.where(able, sizes, 0)[order]]
    counts[order[: total - counts.sum()]] += 1
    return counts


def amounts(weights: Doubles, sizes: Integers, total: int) -> Doubles:
    """(g,) the same before it is rounded: a group that would pass its size is filled and set aside, until none does.

    Raises:
        ContractError: see `quotas`.
    """
    able = weights > 0
    if total > sizes[able].sum():
        raise ContractError(f"{total} rows are to come from groups that have {sizes[able].sum()}")
    full = np.zeros(len(sizes), np.bool_)
    while True:
        open_ = able & ~full
        unit = (total - sizes[full].sum()) / max(weights[open_].sum(), np.finfo(np.float64).tiny)
        over = open_ & (weights * unit >= sizes)
        if not over.any():
            return np.where(full, sizes, np.where(open_, weights * unit, 0.0))
        full |= over


def places_within(groups: Integers, keys: Doubles) -> Integers:
    """(n,) place of each row in its group, 0 for the lowest key; equal keys in the order of the rows."""
    order = np.lexsort((keys, groups))
    first = np.flatnonzero(np.diff(groups[order], prepend=-1))
    places = np.empty(len(groups), np.int64)
    places[order] = np.arange(len(groups)) - np.repeat(first, np.diff(first, append=len(groups)))
    return places

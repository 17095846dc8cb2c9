"""Without chains: a row is dropped only for a row that stays, so every dropped one has a kept one close to it."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from stages.greedy import greedy_partners, of_copies
from stages.near_vectors.neighbours import Neighbours
from stages.near_vectors.similarity import Places
from stages.vectors import Doubles

ALL_BUT_COPIES = 2.0
"""No cosine is above it."""


@dataclass(frozen=True)
class Dropped:
    """Per row, in the order of rows: the kept row it is dropped for, -1 for kept rows; and their cosine."""

    partner: Places
    similarity: Doubles


@dataclass(frozen=True)
class _Pairs:
    first: Places
    second: Places
    value: Doubles

    def above(self, threshold: float) -> "_Pairs":
        close = self.value > threshold
        return _Pairs(self.first[close], self.second[close], self.value[close])


class Greedy:
    """The greedy pass over rows in an order, at any threshold; equal rows are taken together."""

    def __init__(self, rows: Neighbours, order: Places) -> None:
        """Take the equal ones together: they are dropped for the first of them, or for what that one is dropped for."""
        self.rows, self.order = rows, order
        _, first, group = np.unique(rows.digests.to_numpy()[order], return_index=True, return_inverse=True)
        rank = np.argsort(np.argsort(first))  # groups in the order of their first rows
        self.group, self.first = rank[group], np.sort(first)
        self.copies = len(order) - len(first)

    def pairs(self, threshold: float) -> _Pairs:
        """The pairs of groups above the threshold."""
        if threshold >= ALL_BUT_COPIES:
            nothing = np.zeros(0, np.int64)
            return _Pairs(nothing, nothing, np.zeros(0))
        chosen = np.zeros(len(self.order), np.bool_)
        chosen[self.order[self.first]] = True
        first, second, value = self.rows.above(self.order, chosen, threshold)
        return _Pairs(self.group[first], self.group[second], value)

    def dropped(self, pairs: _Pairs) -> Dropped:
        """What goes when these pairs are close."""
        witness = greedy_partners(len(self.first), pairs)
        codes = pairs.second * len(self.first) + pairs.first
        lost = np.flatnonzero(witness >= 0)
        similarity = np.ones(len(self.first))  # of copies to their first
        similarity[lost] = pairs.value[np.searchsorted(codes, lost * len(self.first) + witness[lost])]
        return Dropped(of_copies(self.first, self.group, witness), similarity[self.group])

    def solved(self, drops: int) -> tuple[Dropped, float] | None:
        """The pass at a threshold that drops at least so many rows, and no higher one would; None: there is none."""
        if drops <= self.copies:
            return self.dropped(self.pairs(ALL_BUT_COPIES)), ALL_BUT_COPIES
        for floor in self._floors(drops):
            pairs = self.pairs(floor)
            if self._count(pairs) >= drops:
                return self._bisected(pairs, floor, drops)
        return None

    def _floors(self, drops: int) -> Iterator[float]:
        """Thresholds at which the published rule drops so many, twice as many, ...: never fewer than this one does."""
        largest = self.rows.largest(self.order)[0]
        found = np.sort(largest[np.isfinite(largest)])[::-1]
        while drops < len(found):
            yield float(np.nextafter(found[drops - 1], -2))
            drops *= 2
        yield -2.0

    def _bisected(self, pairs: _Pairs, floor: float, drops: int) -> tuple[Dropped, float]:
        values = np.unique(pairs.value)
        low, high = -1, len(values) - 1  # at values[low] enough are dropped, at values[high] none of the groups
        while high - low > 1:
            middle = (low + high) // 2
            enough = self._count(pairs.above(values[middle])) >= drops
            low, high = (middle, high) if enough else (low, middle)
        threshold = float(values[low]) if low >= 0 else floor
        return self.dropped(pairs.above(threshold)), threshold

    def _count(self, pairs: _Pairs) -> int:
        return self.copies + int((greedy_partners(len(self.first), pairs) >= 0).sum())

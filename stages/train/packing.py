"""Which documents share a row: first-fit-decreasing, the bin packing of Johnson (1973), at most 11/9 of the fewest rows
plus 6/9 (Dosa, 2007).

A step's documents seldom fill their last row, and where a row holds a handful of them, first-fit-decreasing puts the
long ones together. So the same documents are also shared out evenly among about as many rows, the longest first, each
to the emptiest row (Graham, 1969); whichever needs the fewest places is taken. Ties go to the document and to the
row that comes first, so that the same documents always give the same rows.
"""

import heapq
from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict, Field

from schemas.errors import CuveeError


class Pack(BaseModel):
    """Rows that several samples share."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    length: int = Field(4096, gt=0)
    """Most places of a row."""


NEARBY = 16
"""How many rows more or fewer are tried."""


def packed(sizes: Sequence[int], length: int) -> list[list[int]]:
    """Documents by row, in rows of at most `length` places.

    Args:
        sizes: places that each document takes up.
        length: most places of a row.

    Raises:
        CuveeError: a document is longer than a row.
    """
    if not sizes:
        return []
    found = [first_fit_decreasing(sizes, length)]
    about, least = len(found[0]), -(-sum(sizes) // length)
    found += [shared_out(sizes, count) for count in range(max(least, about - NEARBY), about + NEARBY + 1)]
    return min(
        (rows for rows in found if _longest(rows, sizes) <= length),
        key=lambda rows: (len(rows) * _longest(rows, sizes), len(rows)),
    )


def _longest(rows: Sequence[Sequence[int]], sizes: Sequence[int]) -> int:
    return max(sum(sizes[document] for document in row) for row in rows)


def first_fit_decreasing(sizes: Sequence[int], length: int) -> list[list[int]]:
    """Documents by row, rows and what stands in them in the order of filling.

    Raises:
        CuveeError: a document is longer than a row.
    """
    rows: list[list[int]] = []
    free: list[int] = []
    for document in _decreasing(sizes):
        size = sizes[document]
        if size > length:
            raise CuveeError(f"a sample takes up {size} places, but rows are packed to {length}; raise `pack.length`")
        row = next((number for number, room in enumerate(free) if room >= size), len(rows))
        if row == len(rows):
            rows.append([])
            free.append(length)
        rows[row].append(document)
        free[row] -= size
    return rows


def shared_out(sizes: Sequence[int], count: int) -> list[list[int]]:
    """Documents in `count` rows of about the same length."""
    rows: list[list[int]] = [[] for _ in range(count)]
    loads = [(0, row) for row in range(count)]
    for document in _decreasing(sizes):
        load, row = loads[0]
        rows[row].append(document)
        heapq.heapreplace(loads, (load + sizes[document], row))
    return rows


def _decreasing(sizes: Sequence[int]) -> list[int]:
    return sorted(range(len(sizes)), key=lambda number: (-sizes[number], number))

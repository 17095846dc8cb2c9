"""Which documents share a row: first-fit-decreasing, the bin packing of Johnson (1973), at most 11/9 of the fewest rows
plus 6/9 (Dosa, 2007). Ties go to the document that comes first, so that the same documents always give the same rows.
"""

from collections.abc import Sequence

from schemas.errors import CuveeError


def first_fit_decreasing(sizes: Sequence[int], length: int) -> list[list[int]]:
    """Documents by row, rows and what stands in them in the order of filling.

    Args:
        sizes: places that each document takes up.
        length: places of a row.

    Raises:
        CuveeError: a document is longer than a row.
    """
    rows: list[list[int]] = []
    free: list[int] = []
    for document in sorted(range(len(sizes)), key=lambda number: (-sizes[number], number)):
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

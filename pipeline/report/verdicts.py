"""The table of verdicts: what became of every sample, by source, reason and step."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

from pipeline.report.view import ReportView
from schemas.tables import STATUSES

_SOURCES = 10


@dataclass(frozen=True)
class VerdictRow:
    """Counts of one verdict per source, in the order of the table's sources."""

    status: str
    reason: str
    decided_by: str
    counts: tuple[int, ...]
    total: int


@dataclass(frozen=True)
class VerdictTable:
    """Sources across, verdicts down; every column adds up to its source's samples."""

    sources: tuple[str, ...]
    rows: tuple[VerdictRow, ...]
    totals: tuple[int, ...]


def verdict_table(view: ReportView) -> VerdictTable:
    """All verdicts of all sources; the smallest of many sources share a last column."""
    cells: dict[tuple[str, str, str], dict[str, int]] = defaultdict(lambda: defaultdict(int))
    sizes: dict[str, int] = defaultdict(int)
    for line in view.status_counts:
        cells[line.status, line.reason or "", line.decided_by][line.source] += line.count
        sizes[line.source] += line.count
    named = sorted(sizes, key=lambda source: (-sizes[source], source))
    shown = sorted(named if len(named) <= _SOURCES else named[: _SOURCES - 1])
    rest = [source for source in named if source not in shown]
    columns = [[source] for source in shown] + ([rest] if rest else [])
    order = {status: place for place, status in enumerate(STATUSES)}
    keys = sorted(cells, key=lambda key: (order.get(key[0], 9), -sum(cells[key].values()), *key[1:]))
    rows = tuple(_verdict_row(key, cells[key], columns) for key in keys)
    names = (*shown, f"{len(rest)} others") if rest else tuple(shown)
    return VerdictTable(names, rows, tuple(sum(sizes[source] for source in column) for column in columns))


def _verdict_row(key: tuple[str, str, str], cells: Mapping[str, int], columns: list[list[str]]) -> VerdictRow:
    counts = tuple(sum(cells.get(source, 0) for source in column) for column in columns)
    return VerdictRow(*key, counts, sum(counts))

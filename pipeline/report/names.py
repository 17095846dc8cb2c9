"""Tables of columns that hold names: how many rows of each source have which."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from pipeline.report.view import NamesView

_SOURCES, _NAMES = 8, 12


@dataclass(frozen=True)
class NamesTable:
    """Sources across, names down; the rarest names share a last row, the smallest sources a last column."""

    column: str
    meaning: str
    sources: tuple[str, ...]
    totals: tuple[int, ...]
    """Rows per source."""
    rows: tuple[tuple[str | None, tuple[int, ...], int], ...]
    """(name, rows per source, in all); None: without a value."""


def names_table(view: NamesView) -> NamesTable:
    """The table of one column."""
    named = sorted(view.totals, key=lambda source: (-view.totals[source], source))
    shown = sorted(named if len(named) <= _SOURCES else named[: _SOURCES - 1])
    rest = [source for source in named if source not in shown]
    groups = [[source] for source in shown] + ([rest] if rest else [])
    rows = [_row(name, names, view, groups) for name, names in _grouped(view.counts)]
    titles = (*shown, f"{len(rest)} other sources") if rest else tuple(shown)
    totals = tuple(sum(view.totals[source] for source in group) for group in groups)
    return NamesTable(view.column, view.meaning or view.column, titles, totals, tuple(rows))


def _grouped(counts: Mapping[str, Mapping[str | None, int]]) -> list[tuple[str | None, list[str | None]]]:
    """(what a row is called, the names in it): the most frequent first, rows without a value last."""
    total: Counter[str | None] = Counter()
    for of_source in counts.values():
        total.update(of_source)
    order = sorted((name for name in total if name is not None), key=lambda name: (-total[name], name))
    kept = order if len(order) <= _NAMES else order[: _NAMES - 1]
    rest = order[len(kept) :]
    found: list[tuple[str | None, list[str | None]]] = [(name, [name]) for name in kept]
    found += [(f"{len(rest)} others", [*rest])] if rest else []
    return [*found, (None, [None])] if None in total else found


def _row(
    title: str | None, names: list[str | None], view: NamesView, groups: list[list[str]]
) -> tuple[str | None, tuple[int, ...], int]:
    cells = tuple(sum(view.counts.get(source, {}).get(name, 0) for source in g for name in names) for g in groups)
    return title, cells, sum(cells)

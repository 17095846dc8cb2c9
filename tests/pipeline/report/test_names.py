"""Tables of names: what is counted stays counted, whatever is put together."""

from pipeline.report.names import names_table
from pipeline.report.view import NamesView


def test_names_by_source_the_most_frequent_first_and_what_has_none_last() -> None:
    counts = {"web": {"photo": 3, "chart": 5, None: 2}, "scans": {"chart": 1}}
    table = names_table(NamesView("concept", counts, {"web": 10, "scans": 1}, "closest concept"))
    assert table.sources == ("scans", "web") and table.totals == (1, 10)
    assert table.rows == (("chart", (1, 5), 6), ("photo", (0, 3), 3), (None, (0, 2), 2))


def test_many_names_and_many_sources_share_a_last_row_and_column() -> None:
    counts = {f"source{s:02d}": {f"name{n:02d}": (20 - s) * (40 - n) for n in range(30)} | {None: s} for s in range(12)}
    totals = {source: sum(names.values()) for source, names in counts.items()}
    table = names_table(NamesView("language", counts, totals))
    assert len(table.sources) == 8 and table.sources[-1] == "5 other sources" and table.meaning == "language"
    assert [row[0] for row in table.rows][-2:] == ["19 others", None] and len(table.rows) == 13
    assert [sum(row[1][place] for row in table.rows) for place in range(8)] == list(table.totals)
    assert sum(row[2] for row in table.rows) == sum(totals.values())

"""Reading users' runs: what is mended is said, what may mean something else is refused with line and number."""

import hashlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.errors import ContractError, RecipeError
from schemas.tables import trials_schema
from stages.mixture.trials_table import TrialsTable, mixture_ids, read_trials, write_trials

HEADER = "trial,budget,seed,share.web,share.art,nll.target,nll.web"
ROWS = ("a,1000,0,0.25,0.75,2.5,3.5", "b,1000,0,1,0,2.25,3.25", "c,4000,1,0.5,0.5,2,3")


def csv(tmp_path: Path, *rows: str, header: str = HEADER) -> Path:
    path = tmp_path / "runs.csv"
    path.write_text("\n".join((header, *rows)) + "\n")
    return path


def refused(path: Path, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        read_trials(path)


def test_a_csv_becomes_runs_in_canonical_order(tmp_path: Path) -> None:
    table = read_trials(csv(tmp_path, *reversed(ROWS)))
    assert table.sources == ("art", "web") and table.metrics == ("nll.target", "nll.web")
    assert table.trials == ("b", "a", "c") and table.notes == ()
    assert table.budgets.tolist() == [1000, 1000, 4000] and table.seeds.tolist() == [0, 0, 1]
    assert table.shares.tolist() == [[0, 1], [0.75, 0.25], [0.5, 0.5]]
    assert table.values.tolist() == [[2.25, 3.25], [2.5, 3.5], [2, 3]]


def test_a_byte_order_mark_blank_lines_and_names_with_dots_are_read(tmp_path: Path) -> None:
    path = tmp_path / "runs.CSV"
    path.write_bytes(b"\xef\xbb\xbfshare.my.own, share.b ,brier.my.own\r\n0.5,0.5,1\r\n\r\n1,0,2\r\n")
    table = read_trials(path)
    assert table.sources == ("b", "my.own") and table.metrics == ("brier.my.own",)
    assert table.trials == ("line-4", "line-2") and table.budgets.tolist() == table.seeds.tolist() == [0, 0]


def test_parquet_gives_back_what_was_written_and_equal_bytes_in_any_order(tmp_path: Path) -> None:
    digests = set()
    for number, rows in enumerate((ROWS, reversed(ROWS))):
        table = read_trials(csv(tmp_path, *rows, "d,1000,0,0,1,,3"))
        write_trials(table, tmp_path / f"{number}.parquet")
        digests.add(hashlib.sha256((tmp_path / f"{number}.parquet").read_bytes()).hexdigest())
    assert len(digests) == 1
    stored = pq.read_table(tmp_path / "0.parquet")
    assert stored.schema.equals(trials_schema(("web", "art"), ("nll.web", "nll.target")))
    assert stored["nll.target"].null_count == 1
    again = read_trials(tmp_path / "0.parquet")
    assert again.trials == table.trials and np.array_equal(again.shares, table.shares)
    assert np.array_equal(again.values, table.values, equal_nan=True)


@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.integers(0, 2), st.integers(0, 10), st.integers(-50, 50) | st.none()),
        min_size=1,
        max_size=12,
        unique_by=lambda row: row[:3],
    )
)
def test_any_table_survives_the_disk(tmp_path_factory: pytest.TempPathFactory, rows: list) -> None:
    budgets, seeds, tenths = (np.array([row[i] for row in rows], np.int64) for i in range(3))
    values = np.array([[7.0, np.nan if row[3] is None else row[3] / 7] for row in rows])
    shares = np.stack([tenths / 10, 1 - tenths / 10], axis=1)
    names = tuple(str(number) for number in range(len(rows)))
    values[0, 1] = 1.0  # a metric that no run has is refused
    table = TrialsTable(("a", "b"), ("x.y", "z.y"), names, budgets, seeds, shares, values)
    path = tmp_path_factory.mktemp("trials") / "t.parquet"
    write_trials(table, path)
    found = read_trials(path)
    order = [found.trials.index(name) for name in names]
    assert np.array_equal(found.values[order], values, equal_nan=True)
    assert np.array_equal(found.shares[order], shares) and np.array_equal(found.budgets[order], budgets)
    assert sorted(found.budgets) == found.budgets.tolist()


def test_rounded_shares_are_normalised_and_noted(tmp_path: Path) -> None:
    table = read_trials(csv(tmp_path, *ROWS, "d,1000,0,0.333,0.6665,1,1"))
    assert table.shares.sum(axis=1) == pytest.approx(1, abs=1e-15)
    assert table.notes == ("runs.csv: shares of 1 runs were rounded (sums 0.9995 to 1) and normalised to 1",)


def test_rows_off_the_simplex_are_refused_with_line_and_sum(tmp_path: Path) -> None:
    refused(
        csv(tmp_path, *ROWS, "d,1,0,0.5,0.6,1,1"), r"runs\.csv, line 5: the 2 shares sum to 1\.1, expected 1 within"
    )
    refused(csv(tmp_path, "d,1,0,40,60,1,1"), r"line 2: .* sum to 100, .*divide percentages by 100")
    refused(csv(tmp_path, "d,1,0,0,0,1,1", "e,1,0,0.1,0,1,1"), r"line 2: .* sum to 0, .*\(2 rows are off\); correct")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("d,1,0,-0.25,1.25,1,1", r"line 2: `share\.web` is '-0\.25'; a share is not negative"),
        ("d,1,0,nan,1,1,1", r"`share\.web` is 'nan'; every run needs a share of every source: write 0"),
        ("d,1,0,,1,1,1", r"`share\.web` is ''; every run needs a share"),
        ("d,1,0,inf,1,1,1", r"`share\.web` is 'inf'; a share is at most 1"),
        ('d,1,0,"0,5",0.5,1,1', r"`share\.web` is '0,5'; expected a number with a decimal point"),
        ("d,1,0,0.5,0.5,inf,1", r"`nll\.target` is 'inf'; leave the cell empty where a run has no number"),
        ("d,1,0,0.5,0.5,bad,1", r"`nll\.target` is 'bad'; expected a number"),
        ("d,1.5,0,0.5,0.5,1,1", r"`budget` is '1\.5'; expected a whole number, 0 or more"),
        ("d,1,-1,0.5,0.5,1,1", r"`seed` is '-1'; expected a whole number"),
        ("d,1,,0.5,0.5,1,1", r"`seed` is ''; expected a whole number"),
    ],
)
def test_cells_that_cannot_be(tmp_path: Path, row: str, message: str) -> None:
    refused(csv(tmp_path, row), message)


def test_a_run_without_a_metric_is_named(tmp_path: Path) -> None:
    table = read_trials(csv(tmp_path, *ROWS, "d,1000,0,0,1,,3", "e,1000,0,0.1,0.9,NaN,3"))
    assert table.notes == ("runs.csv: no `nll.target` in line 5, line 6; it is fitted on the other runs",)
    assert np.isnan(table.values[:, 0]).sum() == 2
    refused(csv(tmp_path, "d,1,0,0,1,,3"), r"no run has a number for `nll\.target`; fill the column or drop it")


def test_repeated_runs_count_once_and_contradictions_are_refused(tmp_path: Path) -> None:
    table = read_trials(csv(tmp_path, *ROWS, ROWS[0], "again,1000,0,0.25,0.75,2.5,"))
    assert len(table.trials) == 3
    assert table.notes[-1] == "runs.csv: 2 rows repeat a run and count once, e.g. line 5"
    halves = read_trials(csv(tmp_path, "a,1,0,0,1,1,", "b,1,0,0,1,,2"))
    assert halves.values.tolist() == [[1, 2]]
    refused(
        csv(tmp_path, *ROWS, "d,1000,0,0.25,0.75,2.5,3.75"),
        r"line 2 and line 5 are one mixture, budget 1000 and seed 0 with nll\.web 3\.5 and 3\.75; drop one, or give",
    )
    assert len(read_trials(csv(tmp_path, *ROWS, "d,1000,1,0.25,0.75,2.5,3.75")).trials) == 4


def test_files_that_hold_no_runs(tmp_path: Path) -> None:
    refused(tmp_path / "none.csv", r"there is no file .*none\.csv'; name a \.csv or \.parquet")
    (tmp_path / "runs.txt").write_text("x")
    refused(tmp_path / "runs.txt", r"is neither \.csv nor \.parquet")
    refused(csv(tmp_path), "holds no runs")
    (tmp_path / "runs.csv").write_text("")
    refused(tmp_path / "runs.csv", "holds no runs")
    (tmp_path / "runs.csv").write_bytes(b"share.a\xff\n1\n")
    refused(tmp_path / "runs.csv", r"cannot be read: .*utf-8")
    (tmp_path / "runs.parquet").write_bytes(b"PAR1 no")
    refused(tmp_path / "runs.parquet", "cannot be read")
    refused(csv(tmp_path, "1;2", header="share.a;nll.a"), "separated by ';', a CSV's by commas")
    refused(csv(tmp_path, "1,2", header="share.a,nll.a,nll.b"), "line 2 has 2 cells, the header 3")
    refused(csv(tmp_path, "1,2", header="share.a,share.a"), r"two columns called 'share\.a'")


def test_files_without_the_columns_that_are_needed(tmp_path: Path) -> None:
    refused(csv(tmp_path, "1,2", header="web,nll.web"), r"no column `share\.SOURCE`, only web, nll\.web; give every")
    refused(csv(tmp_path, "1,2", header="share.web,loss"), r"no column `METRIC\.HELDOUT`, only share\.web, loss; call")
    refused(csv(tmp_path, "1,2", header="share.,nll.a"), r"'share\.' that names no source")
    table = read_trials(csv(tmp_path, "1,2,x", header="share.web,nll.web,remark"))
    assert table.notes == ("runs.csv: not read, being neither share.SOURCE nor METRIC.HELDOUT: remark",)


def test_parquet_types_of_other_writers_are_read(tmp_path: Path) -> None:
    columns = {"share.a": pa.array([0, 1], pa.int32()), "share.b": pa.array([1.0, 0.0], pa.float32())}
    columns |= {"nll.t": pa.array([0.5, None]), "seed": pa.array([3, 4], pa.uint8())}
    pq.write_table(pa.table(columns), tmp_path / "t.parquet")
    table = read_trials(tmp_path / "t.parquet")
    assert table.trials == ("row-1", "row-2") and table.seeds.tolist() == [3, 4] and np.isnan(table.values[1, 0])
    pq.write_table(pa.table({**columns, "share.a": pa.array([True, False])}), tmp_path / "t.parquet")
    refused(tmp_path / "t.parquet", r"row 1: `share\.a` is True; expected a number")


def test_mixtures_are_equal_whatever_their_seeds() -> None:
    shares = np.array([[0.1 + 0.2, 0.7], [0.5, 0.5], [0.3, 0.7]])
    assert mixture_ids(shares).tolist() == [0, 1, 0]
    with pytest.raises(ContractError, match="expected shares and values of 3 trials"):
        TrialsTable(("a",), ("m.a",), ("x",) * 3, np.zeros(3, np.int64), np.zeros(3, np.int64), shares, shares)

"""Rows of the formats with columns: one schema, row groups that a reader can hold, names that never clash."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.export import parquet
from pipeline.export.columns import Columns
from pipeline.export.format import Layout, Sample
from pipeline.export.parquet import Parquet


def sample(number: int, size: int = 10) -> Sample:
    return Sample(f"k{number}", [("jpg", b"x" * size), ("txt", b"y")], {})


PLAIN = Layout((("jpg", "txt"),), pa.schema([]))


def test_row_groups_end_by_rows_or_by_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "GROUP_ROWS", 4)
    monkeypatch.setattr(parquet, "GROUP_BYTES", 100)
    sizes = [10] * 6 + [200, 10, 60, 60, 10]
    Parquet(PLAIN).write(tmp_path / "t.parquet", (sample(n, size) for n, size in enumerate(sizes)), len(sizes))
    facts = pq.read_metadata(tmp_path / "t.parquet")
    assert [facts.row_group(group).num_rows for group in range(facts.num_row_groups)] == [4, 3, 3, 1]
    assert pq.read_table(tmp_path / "t.parquet")["key"].to_pylist() == [f"k{number}" for number in range(11)]


def test_the_same_samples_are_the_same_bytes(tmp_path: Path) -> None:
    digests = {Parquet(PLAIN).write(tmp_path / name, (sample(n) for n in range(50)), 50) for name in ("a", "b")}
    assert len(digests) == 1


def test_the_image_is_the_scored_one_and_others_keep_their_suffix() -> None:
    layout = Layout((("gif", "jpg", "txt"), ("gif", "txt")), pa.schema([]))
    columns = Columns(layout)
    assert columns.schema.names == ["key", "image", "image_suffix", "caption", "json", "gif"]
    both = columns.row(Sample("a", [("gif", b"g"), ("jpg", b"j"), ("txt", b"t")], {}))
    assert (both["image"], both["image_suffix"], both["gif"]) == (b"j", "jpg", b"g")
    alone = columns.row(Sample("b", [("gif", b"g"), ("txt", b"t")], {}))
    assert (alone["image"], alone["image_suffix"], alone["gif"]) == (b"g", "gif", None)


def test_a_member_called_as_a_column_gives_way() -> None:
    layout = Layout((("caption", "jpg", "key", "txt", "words"),), pa.schema([("words", pa.int32())]))
    row = Columns(layout).row(
        Sample("a", [("caption", b"c"), ("jpg", b"j"), ("key", b"k"), ("txt", b"t"), ("words", b"w")], {"words": 1})
    )
    assert (row["key"], row["caption"], row["words"]) == ("a", "t", 1)
    assert (row["key_member"], row["caption_member"], row["words_member"]) == (b"k", b"c", b"w")


@pytest.mark.parametrize(
    ("members", "caption", "document"),
    [
        ([("txt", "\ufeffmit Marke".encode())], "mit Marke", None),
        ([("json", b'{"caption": "aus JSON"}')], "aus JSON", '{"caption": "aus JSON"}'),
        ([("json", b'{"text": "Text"}'), ("txt", b"vor")], "vor", '{"text": "Text"}'),
        ([("json", b"\xff"), ("txt", b"t")], "t", "\\xff"),
    ],
)
def test_captions_are_what_ingest_reads(members: list[tuple[str, bytes]], caption: str, document: str | None) -> None:
    row = Columns(Layout((("jpg", "json", "txt"),), pa.schema([]))).row(Sample("a", [("jpg", b"j"), *members], {}))
    assert (row["caption"], row["json"]) == (caption, document)

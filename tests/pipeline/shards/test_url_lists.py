"""Lists of URLs are refused before any work, with the command that fetches them."""

import csv
import json
import shlex

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.shards import containers
from pipeline.shards.url_lists import url_list
from schemas.errors import RecipeError
from schemas.recipe import Source

URLS = [f"https://example.org/{number}.jpg" for number in range(20)]
CAPTIONS = [f"a thing, number {number}" for number in range(20)]


def write(path):
    ending = path.suffix
    if ending == ".parquet":
        pq.write_table(pa.table({"sha": ["x"] * 20, "URL": URLS, "TEXT": CAPTIONS}), path)
    elif ending in (".csv", ".tsv"):
        with open(path, "w", newline="") as stream:
            rows = csv.writer(stream, delimiter="\t" if ending == ".tsv" else ",")
            rows.writerows([("URL", "TEXT"), *zip(URLS, CAPTIONS, strict=True)])
    elif ending in (".jsonl", ".json"):
        lines = [json.dumps({"URL": url, "TEXT": text}) for url, text in zip(URLS, CAPTIONS, strict=True)]
        path.write_text("\n".join(lines) + "\n")
    else:
        path.write_text("\n".join(URLS) + "\n")
    return str(path)


def command(message):
    (line,) = [line for line in message.splitlines() if "img2dataset --url_list" in line]
    return shlex.split(line)


@pytest.mark.parametrize("ending", ["parquet", "csv", "tsv", "jsonl", "json", "txt"])
def test_a_list_under_shards_is_refused_with_the_command_that_fetches_it(tmp_path, ending):
    path = write(tmp_path / f"my list.{ending}")
    with pytest.raises(RecipeError, match="does not download") as refusal:
        containers(Source(source="s", shards=path))
    columns = [] if ending == "txt" else ["--url_col", "URL", "--caption_col", "TEXT"]
    sizes = ["--resize_mode", "no"]
    output = ["--output_format", "webdataset", "--output_folder", "OUT"]
    expected = ["img2dataset", "--url_list", path, "--input_format", ending, *columns, *sizes, *output]
    assert command(str(refusal.value)) == expected
    assert "shards: OUT/*.tar" in str(refusal.value) and URLS[0] in str(refusal.value)


@pytest.mark.parametrize("scheme", ["http", "https", "s3", "HTTP", "gs"])
def test_a_parquet_column_of_urls_is_refused(tmp_path, scheme):
    column = [f"{scheme}://example.org/{number}" for number in range(5)]
    pq.write_table(pa.table({"link": [None, *column], "words": ["w"] * 6}), tmp_path / "a.parquet")
    with pytest.raises(RecipeError, match=r"column 'link'.*does not download") as refusal:
        containers(Source(source="s", parquet=str(tmp_path / "*"), image="link", caption="words"))
    assert command(str(refusal.value))[5:9] == ["--url_col", "link", "--caption_col", "words"]


@pytest.mark.parametrize("table", ["t.csv", "t.jsonl"])
def test_a_folders_table_of_urls_is_refused(tmp_path, table):
    path = write(tmp_path / table)
    source = Source(source="s", folder=str(tmp_path), table=table, image="URL", caption="TEXT")
    with pytest.raises(RecipeError, match="does not download") as refusal:
        containers(source)
    assert command(str(refusal.value))[2] == path


@pytest.mark.parametrize("ending", ["csv", "tsv", "txt"])
def test_a_list_in_another_place_is_refused_too(tmp_path, ending):
    path = write(tmp_path / f"list.{ending}")
    for places in ({"parquet": path}, {"folder": str(tmp_path), "table": path, "image": "URL", "caption": "TEXT"}):
        with pytest.raises(RecipeError, match="does not download"):
            containers(Source(source="s", **places))


def test_a_stray_url_among_paths_is_no_list(tmp_path):
    pq.write_table(pa.table({"image": ["a.jpg", "b.jpg", URLS[0]], "caption": ["w"] * 3}), tmp_path / "a.parquet")
    assert len(containers(Source(source="s", parquet=str(tmp_path / "*.parquet")))) == 1
    assert url_list(str(tmp_path / "a.parquet")) is None


@pytest.mark.parametrize("content", [b"", b"\x00\xff" * 99, b"a,b\n1,2\n", b'{"a": 1}\n', b"[" * 9999, b"just words\n"])
@pytest.mark.parametrize("ending", ["parquet", "csv", "tsv", "jsonl", "json", "txt", "zip"])
def test_any_other_file_is_none_and_raises_nothing(tmp_path, content, ending):
    path = tmp_path / f"x.{ending}"
    path.write_bytes(content)
    assert url_list(str(path)) is None
    with pytest.raises(RecipeError, match=r"narrow the pattern, e\.g\. to `\*\.tar`"):
        containers(Source(source="s", shards=str(path)))

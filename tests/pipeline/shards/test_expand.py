import os

import fsspec
import pytest

from pipeline.shards import expand
from pipeline.shards.expand import braces
from schemas.errors import RecipeError


@pytest.mark.parametrize(
    ("pattern", "spelled"),
    [
        ("a.tar", ["a.tar"]),
        ("a{0..2}", ["a0", "a1", "a2"]),
        ("a{08..11}", ["a08", "a09", "a10", "a11"]),
        ("a{2..0}", ["a2", "a1", "a0"]),
        ("{x,y}{1..2}", ["x1", "x2", "y1", "y2"]),
        ("{a,b{1..2}}.tar", ["a.tar", "b1.tar", "b2.tar"]),
        ("{a,}z", ["az", "z"]),
        ("{abc}{1,2}", ["{abc}1", "{abc}2"]),
        ("a{1..2", ["a{1..2"]),
    ],
)
def test_braces(pattern, spelled):
    assert list(braces(pattern)) == spelled


def test_braces_agree_with_the_shell_convention_webdataset_uses():
    braceexpand = pytest.importorskip("braceexpand")
    for pattern in ["s-{000..012}.tar", "{a,b}/{0..3}.tar", "p{a,{b,c}}q", "{10..08}", "{1..3}{x,y}"]:
        assert list(braces(pattern)) == list(braceexpand.braceexpand(pattern))


@pytest.fixture
def folder(tmp_path):
    for name in ["b/00001.tar", "a/00000.tar", "a/00001.tar", "a/notes.md", "a/[odd]{1..2}.tar"]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    return str(tmp_path)


def test_globs_braces_and_lists_are_sorted_and_unique(folder):
    first, second = f"{folder}/a/00000.tar", f"{folder}/a/00001.tar"
    assert expand(f"{folder}/a/{{00000..00001}}.tar") == [first, second]
    assert expand((f"{folder}/*/00001.tar", second, first)) == [first, second, f"{folder}/b/00001.tar"]
    assert expand(f"{folder}/**/0*.tar") == [first, second, f"{folder}/b/00001.tar"]
    assert expand(f"file://{folder}/a/0*.tar") == [first, second]


def test_a_file_named_like_a_pattern_is_taken_as_it_is(folder):
    assert expand(f"{folder}/a/[odd]{{1..2}}.tar") == [f"{folder}/a/[odd]{{1..2}}.tar"]


def test_urls():
    files = fsspec.filesystem("memory")
    for name in ("one", "two"):
        files.pipe(f"/expand/{name}.tar", b"x")
    urls = expand("memory://expand/*.tar")
    assert [os.path.basename(url) for url in urls] == ["one.tar", "two.tar"]
    assert all(fsspec.open(url).open().read() == b"x" for url in urls)
    assert len(expand("memory://expand/{one,two}.tar")) == 2
    with pytest.raises(RecipeError, match="matches no file"):
        expand("memory://expand/*.parquet")
    with pytest.raises(RecipeError, match=r"three\.tar.*does not exist"):
        expand("memory://expand/three.tar")


def test_refusals_name_what_was_looked_for(folder):
    with pytest.raises(RecipeError, match=r"00009\.tar.*does not exist"):
        expand(f"{folder}/a/00009.tar")
    with pytest.raises(RecipeError, match=r"00002\.tar', which does not exist"):
        expand(f"{folder}/a/{{00000..00002}}.tar")
    with pytest.raises(RecipeError, match=r"\*\.webp.*matches no file"):
        expand((f"{folder}/a/*.tar", f"{folder}/a/*.webp"))
    with pytest.raises(RecipeError, match="more than"):
        expand("shard-{0..99999999999}.tar")
    with pytest.raises(RecipeError, match="nosuch"):
        expand("nosuch://bucket/a.tar")
    with pytest.raises(RecipeError, match="no pattern"):
        expand(())

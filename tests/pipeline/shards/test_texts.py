"""Captions and documents are decoded as the standard library's slower ways decode them."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.shards.foreign_json import parse_json
from pipeline.shards.rows import read_caption

BEGINNINGS = st.sampled_from(
    [b"", b"{", b"\xef\xbb", b"\xef\xbb\xbf", b"\xef\xbb\xbf" * 2, b"{\0", b"\xff\xfe{\0", b"\0{"]
)
ENDINGS = st.binary(max_size=8) | st.sampled_from(
    [b'"a": 1}', b'"\xed\xa0\x80": 1}', b"}", b"\0}\0", b"}x", b'"a": NaN}']
)


@given(BEGINNINGS, ENDINGS)
def test_documents(beginning: bytes, ending: bytes) -> None:
    assert _parsed(parse_json, beginning + ending) == _parsed(json.loads, beginning + ending)


def _parsed(parse: Any, document: bytes) -> Any:
    try:
        return repr(parse(document))
    except ValueError:
        return ValueError


@given(BEGINNINGS, ENDINGS)
def test_captions(beginning: bytes, ending: bytes) -> None:
    text = beginning + ending
    try:
        expected = text.decode("utf-8-sig")
    except UnicodeDecodeError:
        expected = None
    caption, reason = read_caption(text)
    assert reason == "caption_not_text" or caption == expected


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32-be"])
def test_every_encoding_that_json_knows(encoding: str) -> None:
    assert parse_json('{"caption": "図"}'.encode(encoding)) == {"caption": "図"}

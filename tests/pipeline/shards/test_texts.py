"""Captions and documents are decoded as the standard library's slower ways decode them."""

import json
import re
from functools import partial
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


LEAVES = st.none() | st.booleans() | st.integers() | st.integers(-(2**70), 2**70) | st.floats() | st.text()
DOCUMENTS = st.recursive(LEAVES, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=8)


@given(DOCUMENTS, st.booleans(), st.sampled_from(["", " ", "\n"]), st.integers(0, 400), st.binary(max_size=1))
def test_documents_of_all_kinds(value: Any, ascii_only: bool, space: str, place: int, damage: bytes) -> None:
    text = space + json.dumps(value, ensure_ascii=ascii_only) + space
    document = text.encode(errors="surrogatepass")
    for one in (document, document[:place] + damage + document[place + 1 :]):
        assert _parsed(parse_json, one) == _parsed(json.loads, one)
        assert _rounded(_parsed(QUICKLY, one)) == _rounded(_parsed(json.loads, one))


QUICKLY = partial(parse_json, exact=False)


def _rounded(shown: Any) -> Any:
    """A value's text, integers that 64 bits do not hold as floats."""
    return shown if shown is ValueError else re.sub(r"-?\d{19,}(?![\d.e])", lambda found: repr(float(found[0])), shown)


@pytest.mark.parametrize("number", ["9" * 18, "1e999", "1" * 5000, "1.5" + "0" * 30, "-0", "01", "1.", "+1", "NaN"])
def test_numbers(number: str) -> None:
    document = f'{{"a": {number}}}'.encode()
    assert _parsed(parse_json, document) == _parsed(json.loads, document) == _parsed(QUICKLY, document)


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

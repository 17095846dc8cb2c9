import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.report.harmless import clip, harmless

ANY_TEXT = st.text(st.characters(codec=None, exclude_categories=()), max_size=200)


@given(ANY_TEXT)
def test_nothing_a_browser_obeys_is_left(text: str) -> None:
    shown = harmless(text)
    shown.encode("utf-8")
    assert harmless(shown) == shown
    for letter in shown:
        assert unicodedata.category(letter) != "Cc" or letter in "\n\t"
        assert unicodedata.bidirectional(letter) not in ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a dog\r\nruns", "a dog\nruns"),
        ("a\x00b", "a[U+0000]b"),
        ("evil\u202egpj", "evil[U+202E]gpj"),
        ("\ud83d", "[U+D83D]"),
        ("مرحبا 猫 é 👩\u200d👧", "مرحبا 猫 é 👩\u200d👧"),
        ("e" + "\u0301" * 9, "e" + "\u0301" * 4),
    ],
)
def test_what_is_shown(text: str, shown: str) -> None:
    assert harmless(text) == shown


def test_clip() -> None:
    assert clip(None, 5) == ""
    assert clip("  two \n words ", 20) == "two words"
    assert clip("abcdef", 5) == "abcde…"
    assert clip("abcde", 5) == "abcde"
    assert clip("a" + " " * 100, 5) == "a…"


@given(ANY_TEXT, st.integers(1, 50))
def test_clip_is_one_short_line(text: str, limit: int) -> None:
    line = clip(text, limit)
    assert "\n" not in line
    assert len(line) <= 10 * limit + 1

"""Answers' probabilities against all that a small made-up language model could say, enumerated."""

from functools import cache
from itertools import product

import numpy as np
import pytest

from stages.raters.answers import AnswerTrie, Logs, Path, expectation

TOKENS = (*"0123456789", " ", "x")
SPACE, OTHER = 10, 11


def digit_by_digit(text: str) -> list[int]:
    return [TOKENS.index(letter) for letter in text]


@cache
def model(path: Path) -> Logs:
    """Log-probabilities after a path: any, but always the same."""
    noise = np.random.Generator(np.random.Philox(key=[7, hash(path) & 0xFFFF]))
    return np.log(noise.dirichlet(np.full(len(TOKENS), 0.7)))


def read(said: Path, high: int) -> int | None:
    """The number that a reader sees who stops where no longer number of the scale can follow."""
    digits = said[1:] if said[0] == SPACE else said
    text = ""
    for token in digits:
        if token > 9:
            break
        text += str(token)
        if not any(str(n).startswith(text) and len(str(n)) > len(text) for n in range(high + 1)):
            break
    return int(text) if text and text == str(int(text)) and int(text) <= high else None


@pytest.mark.parametrize("high", [5, 12, 100])
def test_equal_to_enumerating_everything_that_can_be_said(high: int) -> None:
    trie = AnswerTrie.of([str(n) for n in range(high + 1)], digit_by_digit, range(10))
    found = trie.probabilities({path: model(path) for path in ((), *trie.asked())})
    expected = np.zeros(high + 1)
    for said in product(range(len(TOKENS)), repeat=5 if high == 100 else 4):
        number = read(said, high)
        if number is not None:
            expected[number] += np.exp(sum(model(said[:depth])[token] for depth, token in enumerate(said)))
    assert found == pytest.approx(expected, abs=1e-12)
    assert 0 < found.sum() <= 1


def test_one_token_each_needs_nothing_more() -> None:
    """ "7" is no beginning of "75" where both are one token."""
    trie = AnswerTrie.of([str(n) for n in range(101)], lambda text: [int(text) + 101 * text.startswith(" ")], ())
    assert trie.asked() == []
    after = np.log(np.full(202, 1 / 202))
    assert trie.probabilities({(): after}) == pytest.approx(np.full(101, 1 / 101))


def test_beginnings_are_asked_about_before_what_goes_on_from_them() -> None:
    asked = AnswerTrie.of([str(n) for n in range(101)], digit_by_digit, range(10)).asked()
    assert len(asked) == 10 + 1 + 10  # 1 to 9 and 10, a space, and the same after it
    assert all(path[:-1] in asked[:place] for place, path in enumerate(asked) if len(path) > 1)


def test_a_label_that_begins_another_keeps_only_what_ends_there() -> None:
    trie = AnswerTrie.of(["art", "art x"], lambda text: [{"art": 0, " art": 1}.get(t, 2) for t in _words(text)], ())
    halves = np.log(np.array([0.5, 0.25, 0.25]))
    after = {path: halves for path in trie.inner()}
    assert trie.probabilities(after) == pytest.approx([0.75 * 0.75, 0.75 * 0.25])


def _words(text: str) -> list[str]:
    head = " art" if text.startswith(" art") else "art"
    return [head, *([" x"] if text.endswith(" x") else [])]


def test_expectation_renormalises_and_has_an_answer_for_nothing() -> None:
    assert expectation([0, 50, 100], np.array([0.1, 0.0, 0.3])) == (pytest.approx(75.0), pytest.approx(0.4))
    assert expectation([1, 2, 5], np.zeros(3)) == (3.0, 0.0)

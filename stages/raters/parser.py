"""Scores and labels out of what a language model wrote: MLM-Filter's generate-and-parse path (arXiv:2403.02677).

The released scorer stores whatever two tokens came back, unchecked. Here an answer is a number of the scale or it is
none: a wrong score costs more than a missing one, which has a reason and can be counted.

What counts is the first line with a digit, since the prompt asks for the score first. In it

- the scale itself, echoed (`0-100`, `from 1 to 100`), and a denominator (`/100`, `out of 100`) are no answers, and what
  is said on another scale (`10/10`), or as a range (`70 to 80`), is none either;
- nor is a number that is part of a word (`GPT4`, `75th`) or that counts something (`3 dogs`, `100% sure`);
- nor one that is denied (`not a 100`, `I cannot give this a 100`) or a bound (`less than 85`);
- what is left has to be one number, however often it is said: `70 or 80`, `-5`, `75.5` and `101` are refused;
- a line of nothing but single digits set apart, `7 5`, is one number: that is how tokens of one digit each look when
  they are decoded one by one, while nobody asks for two scores in one answer.
"""

import re
import unicodedata
from collections.abc import Sequence

MAY_FOLLOW = {
    *("out", "of", "on", "points", "point", "pts", "percent", "star", "stars"),
    *("because", "since", "as", "due", "given", "but", "and", "or", "for", "is"),
}
"""Words that may come right after a score; before any other word, a number counts things."""
POINTS = ("分", "点", "점")
"""Units that are written to the number without a space."""
OTHER = "\0"
"""Stands for a number on another scale, or a range."""
_THOUGHT = re.compile(r"<think>.*?(</think>|\Z)", re.S | re.I)
_BOUND_SIGN = re.compile(r"(?<!\S)[<>≤≥]=?(?=\s*\d+(?!\d*\s*>))")
_BRACKETS = re.compile(r"[\[\](){}<>]")
_MARKS = re.compile(r"[*`#\"“”|\\]|(?<![^\W_])_|_(?![^\W_])|(?<![^\W\d_])['‘’]|['‘’](?![^\W\d_])")  # noqa: RUF001
_SPLIT_DIGITS = re.compile(r"\d(?:\s\d)+\s*[.!]?")
_ONE = r"(\d{1,9}(?:[.,]\d+)*)(?![.,]?\d)"
_RANGE = re.compile(
    rf"(?<![\w.,-]){_ONE}(?:\s*(?:%|points?\b|pts\b|stars?\b|;[^;\d]*;))?[\s|]*(?:-|to|and|~|\.\.+)[\s|]*{_ONE}", re.I
)
_DENOMINATOR = re.compile(
    rf"(/|\b(?:out\s+)?of\b)[\s|]*(?:an?\s+)?(?:(?:possible|maximum|total)\s+(?:of\s+)?)?{_ONE}", re.I
)
_FULL_MARKS = re.compile(r"(\d{1,9})\s*[分点]?\s*満点(?:中|のうち|で)?")
_CJK = r"\u3040-\u9fff\uac00-\ud7af"
_NUMBER = re.compile(rf"(?<![^\W{_CJK}])(?<![.,])(-?)(\d+)((?:[.,]\d+)*)")
_LAST_NUMBER = re.compile(r"(\d{1,9})([.,]?)$")
_NEXT_WORD = re.compile(r"[\s|]*%?[\s|]*([^\W\d]+)")
_DENIAL = re.compile(r"\b(?:not|cannot|never|neither|unable|sorry|refuse)\b|n't\b", re.I)
_LABEL_DENIAL = re.compile(rf"{_DENIAL.pattern}|\b(?:no|none|nor)\b", re.I)
_BOUND = re.compile(
    r"\b(?:(?:less|more|fewer|lower|higher|greater|better|worse)\s+than|below|under|above|over|at\s+(?:most|least)|up\s+to)"
    r"\s+(?:an?\s+|the\s+)?[|;]*$",
    re.I,
)


def parse_score(text: str, low: int, high: int, *, cut: bool = False) -> int | None:
    """The one integer in [low, high] that `text` gives as its answer; None where it gives none, or several.

    Digits of any script count; `75.0` is 75; `75%` is 75 on a scale that ends at 100. `cut`: the model would have gone
    on, so that an 8 at the end may be the beginning of 85, and is no answer.
    """
    plain = _separated(text)
    line = next((line for line in plain.splitlines() if any(map(str.isdecimal, line))), "")
    at_end = cut and plain.endswith(line)
    if _SPLIT_DIGITS.fullmatch(line.strip(" \t|;")):
        line = re.sub(r"\s", "", line)
    if at_end and _may_go_on(line, low, high):
        return None
    line = _without_scale(line, low, high)
    found = {_value(number, line, high) for number in _NUMBER.finditer(line) if not _counts(line[number.end() :])}
    score = found.pop() if len(found) == 1 and OTHER not in line else None
    return score if score is not None and low <= score <= high else None


def parse_label(text: str, labels: Sequence[str]) -> str | None:
    """The one label that the first line of `text` with any label in it names, whatever its case; None otherwise.

    A label inside a longer one (`science` in `computer science`) is not named by it, nor is one that is denied (`not
    food`).
    """
    for line in _folded(text).splitlines():
        named, said = [], line
        for label in sorted(labels, key=len, reverse=True):
            rest = re.sub(rf"(?<!\w){re.escape(_folded(label))}(?!\w)", "\0", line)
            if rest != line:
                named.append(label)
            line = rest
        if named:
            denied = _LABEL_DENIAL.search(said, 0, line.index(OTHER))
            return named[0] if len(named) == 1 and not denied else None
    return None


def _separated(text: str) -> str:
    """As `_plain`, with `;` where a bracket stood and `|` where another mark did; `< 85` is `below 85`."""
    shown = _BOUND_SIGN.sub("below ", _THOUGHT.sub("", text))
    return _characters(_MARKS.sub("|", _BRACKETS.sub(";", shown)))


def _plain(text: str) -> str:
    """Without thoughts, markup and invisible characters; every minus sign and dash as one hyphen."""
    return _characters(_MARKS.sub("", _BRACKETS.sub("", _THOUGHT.sub("", text))))


def _characters(text: str) -> str:
    return "".join(map(_plain_character, text.replace("’", "'").replace(OTHER, "")))  # noqa: RUF001


def _plain_character(character: str) -> str:
    kind = unicodedata.category(character)
    if kind == "Pd" or character == "−":  # noqa: RUF001
        return "-"
    return "" if kind == "Cf" else character


def _folded(text: str) -> str:
    lines = (" ".join(line.split()) for line in _plain(text).casefold().splitlines())
    return "\n".join(lines)


def _without_scale(line: str, low: int, high: int) -> str:
    """Without the scale and denominators that are its top; `OTHER` for other ranges and denominators."""

    def ranged(found: re.Match[str]) -> str:
        echoed = found[2] == str(high) and found[1] in {"0", "1", str(low)}
        return " " if echoed else OTHER

    def divided(found: re.Match[str]) -> str:
        if found[2] == str(high):
            return "," if not _counts(line[found.end() :]) else OTHER
        counted = found[1].lower() == "of" and not line[: found.start()].rstrip(" \t|;%")[-1:].isdecimal()
        return found[0] if counted else OTHER  # `a photo of 3 dogs`

    line = _RANGE.sub(ranged, line)
    line = _FULL_MARKS.sub(lambda found: " " if found[1] == str(high) else OTHER, line)
    return _DENOMINATOR.sub(divided, line)


def _may_go_on(line: str, low: int, high: int) -> bool:
    """Whether the number that ends a line may be the beginning of another one of the scale, or of a fraction."""
    last = _LAST_NUMBER.search(line)
    if last is None or last[2]:
        return last is not None
    begun = str(int(last[1]))
    return any(str(number).startswith(begun) and str(number) != begun for number in range(low, high + 1))


def _counts(rest: str) -> bool:
    """Whether what follows a number makes it part of a word, or a number of things."""
    if rest and unicodedata.category(rest[0]) in ("No", "Nl", "Mn", "Me"):
        return True
    word = _NEXT_WORD.match(rest)
    if word is None or (rest[0] == "|" and word[1][0].isupper()):  # `**85** The caption`
        return False
    return word[1].casefold() not in MAY_FOLLOW and not word[1].startswith(POINTS)


def _value(number: re.Match[str], line: str, high: int) -> int | None:
    """An integer, or None for what looks like an answer and is none."""
    sign, digits, fraction = number.groups()
    percent = line[number.end() :].lstrip().startswith("%")
    whole = re.fullmatch(r"\.0+|,0{1,2}|", fraction) is not None
    before = line[: number.start()]
    if not whole or len(digits) > 9 or (percent and high != 100) or _DENIAL.search(before) or _BOUND.search(before):
        return None
    return int(sign + digits)

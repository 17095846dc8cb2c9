"""What an OpenAI-compatible server answered, as an answer to the question.

With log-probabilities the score is the mean over the numbers among the likeliest tokens, weighed by probability and
renormalised: `sum p_v v / sum p_v`. That is possible where a number is one token. Where digits are tokens of their own
only the digits after the chosen one are known, so there the number that was generated is the score.
"""

import json
import math
import re
from dataclasses import dataclass
from typing import Any

from stages.raters.backend import UNPARSEABLE, Answer
from stages.raters.parser import parse_label, parse_score
from stages.raters.rubric import Question

REFUSED = "rater_refused"
"""The server would not answer for this sample: its content filter, or an error that a plain sample does not get."""
MOST_LOGPROB = 1e-3
"""Log-probabilities end at 0; servers round."""
MOST_TOKENS = 1 << 40
"""No request has as many; a server that says so has not counted."""
SPACES = " \t\n▁Ġ"
"""What tokens begin with where a word begins."""


class BrokenReplyError(Exception):
    """An answer that is not what the protocol says: JSON, with one choice and its text."""


class ErrorReplyError(Exception):
    """A server's error that came with status 200; its text is the server's own."""

    def __init__(self, status: int) -> None:
        """`status`: the one that its code means; 500 where that is none."""
        super().__init__(f"an error with code {status}")
        self.status = status


@dataclass(frozen=True)
class Usage:
    """Tokens as the server counts them; None where it does not say."""

    input_tokens: int | None = None
    output_tokens: int | None = None


@dataclass(frozen=True)
class Reply:
    """One completion."""

    text: str
    refused: bool
    tokens: tuple[dict[str, float], ...] | None
    """Per generated token: what it is first, then its likeliest rivals, with log-probabilities; None: not given."""
    usage: Usage
    cut: bool = False
    """It ends where the tokens allowed it did, not where the model would have ended."""


def read_reply(body: bytes) -> Reply:
    """Take a response's body apart.

    Raises:
        BrokenReplyError: with what is wrong; never with the body itself.
        ErrorReplyError: it is an error in place of a completion.
    """
    try:
        document = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise BrokenReplyError(f"{len(body)} bytes that are no JSON") from error
    if isinstance(document, dict) and document.get("error") and not document.get("choices"):
        raise ErrorReplyError(_status(document["error"]))
    try:
        choice = document["choices"][0]
        message = choice["message"]
        text = message["content"]
        stopped = choice.get("finish_reason") == "content_filter" or bool(message.get("refusal"))
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        raise BrokenReplyError("JSON without choices[0].message.content") from error
    if not isinstance(text, str) and not (text is None and stopped):
        raise BrokenReplyError(f"a message whose content is {type(text).__name__}, not text")
    cut = choice.get("finish_reason") == "length"
    return Reply(text or "", stopped, _tokens(choice.get("logprobs")), _usage(document.get("usage")), cut)


def answer(reply: Reply, question: Question) -> Answer:
    """The score, the label, or the reason for having none."""
    if reply.refused:
        return Answer(None, REFUSED)
    if question.labels:
        label = parse_label(reply.text, question.labels)
        return Answer(label, None if label is not None else UNPARSEABLE)
    score = parse_score(reply.text, question.low, question.high)
    if score is None:
        return Answer(None, UNPARSEABLE)
    expected = _expectation(reply.tokens or (), score, question)
    if expected is not None:
        return Answer(expected)
    whole = parse_score(reply.text, question.low, question.high, cut=reply.cut)
    return Answer(None, UNPARSEABLE) if whole is None else Answer(float(whole))


def _expectation(tokens: tuple[dict[str, float], ...], score: int, question: Question) -> float | None:
    """The mean score at the token that is the score; None where numbers are not single tokens."""
    rivals = next((rivals for rivals in tokens if _number(next(iter(rivals))) == score), None)
    if rivals is None:
        return None
    numbers = [
        (number, math.exp(logprob)) for token, logprob in rivals.items() if (number := _number(token)) is not None
    ]
    if question.high > 9 and all(number <= 9 for number, _ in numbers):
        return None  # a single digit may be the first of several
    within = [(number, chance) for number, chance in numbers if question.low <= number <= question.high]
    total = math.fsum(chance for _, chance in within)
    mean = math.fsum(number * chance for number, chance in within) / total if total else float(score)
    return min(max(mean, float(question.low)), float(question.high))


def _number(token: str) -> int | None:
    digits = token.strip(SPACES)
    return int(digits) if digits.isascii() and digits.isdecimal() and len(digits) <= 9 else None


def _tokens(logprobs: Any) -> tuple[dict[str, float], ...] | None:
    if not isinstance(logprobs, dict) or logprobs.get("content") is None:
        return None
    try:
        return tuple(_rivals(position) for position in logprobs["content"])
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise BrokenReplyError("logprobs that are not tokens with numbers of at most 0") from error


def _rivals(position: dict[str, Any]) -> dict[str, float]:
    found: dict[str, float] = {}
    for entry in (position, *(position.get("top_logprobs") or ())):
        token, logprob = entry["token"], float(entry["logprob"])
        if not isinstance(token, str) or math.isnan(logprob) or logprob > MOST_LOGPROB:
            raise ValueError
        found.setdefault(token, min(logprob, 0.0))
    return found


def _usage(usage: Any) -> Usage:
    counts = usage if isinstance(usage, dict) else {}
    return Usage(_count(counts.get("prompt_tokens")), _count(counts.get("completion_tokens")))


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < MOST_TOKENS else None


def _status(error: Any) -> int:
    code = str(error.get("code")) if isinstance(error, dict) else ""
    return int(code) if re.fullmatch("[45][0-9][0-9]", code) else 500

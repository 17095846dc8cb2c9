"""How long to wait before a request is sent again: exponential backoff, or what the server asks for."""

import random
import re
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

FIRST_WAIT_SECONDS = 1.0
LONGEST_WAIT_SECONDS = 60.0
"""Also the longest that a server may ask for; beyond it the run stops and says so."""

MOST_SECONDS = 1e9
"""A server that asks for more is heard as asking for this."""


def wait_seconds(attempt: int, asked: float | None) -> float:
    """Before try `attempt` + 1: 1, 2, 4, ... s up to a minute, by half to the whole, and no less than was asked for.

    Chance only spreads workers out in time; it decides about no result.
    """
    own = min(LONGEST_WAIT_SECONDS, FIRST_WAIT_SECONDS * 2.0 ** (attempt - 1)) * random.uniform(0.5, 1)
    return own if asked is None else max(own, asked + random.random())


def asked_seconds(retry_after: str | None) -> float | None:
    """Seconds of a `Retry-After`, which is a number or a date; None where there is none, or nothing like it."""
    if retry_after is None:
        return None
    if re.fullmatch(r"\s*-?\d+(\.\d*)?\s*", retry_after, re.ASCII):
        return min(max(0.0, float(retry_after)), MOST_SECONDS)
    try:
        moment = parsedate_to_datetime(retry_after)
        seconds = (moment.replace(tzinfo=moment.tzinfo or UTC) - datetime.now(UTC)).total_seconds()
    except (ValueError, OverflowError):
        return None
    return min(max(0.0, seconds), MOST_SECONDS)

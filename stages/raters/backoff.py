"""How long to wait before a request is sent again: exponential backoff, or what the server asks for."""

import random
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

FIRST_WAIT_SECONDS = 1.0
LONGEST_WAIT_SECONDS = 60.0
"""Also the longest that a server may ask for; beyond it the run stops and says so."""


def wait_seconds(attempt: int, asked: float | None) -> float:
    """Before try `attempt` + 1: what the server asked for, else 1, 2, 4, ... s up to a minute, by half to the whole.

    Chance only spreads workers out in time; it decides about no result.
    """
    if asked is not None:
        return asked + random.random()
    return min(LONGEST_WAIT_SECONDS, FIRST_WAIT_SECONDS * 2.0 ** (attempt - 1)) * random.uniform(0.5, 1)


def asked_seconds(retry_after: str | None) -> float | None:
    """Seconds of a `Retry-After`, which is a number or a date; None where there is none, or nothing like it."""
    if retry_after is None:
        return None
    try:
        return max(0.0, float(int(retry_after)))
    except ValueError:
        pass
    try:
        moment = parsedate_to_datetime(retry_after)
    except ValueError:
        return None
    return max(0.0, (moment.replace(tzinfo=moment.tzinfo or UTC) - datetime.now(UTC)).total_seconds())

"""Captions that break off: sites shorten titles to a number of characters, with or without a mark."""

import re
from collections.abc import Collection

NONE = "none"
ELLIPSIS = re.compile(r"(?:\.\.\.|…)[\s\"'\u201d\u2019»)\]}>!?.]{0,8}$")
DANGLING = re.compile(r"(?:[,&|\u2013\u2014-]|(?<!\S)(?:/|\+|the|an|a|of|and|or|with|for|from|your|our|their|its))$")
"""What cannot end an English phrase; capitalised it can (`Vitamin A`)."""
CLOSERS = {"(": ")", "[": "]", "{": "}"}
TAIL = 400


def ending(caption: str, cut_lengths: Collection[int] = ()) -> str:
    """How a caption breaks off, the first that holds:

    `ellipsis`: three dots or their sign; `cut_length`: it is exactly as long as one of `cut_lengths` and does not end
    like a sentence; `open_bracket`: the last bracket is never closed; `dangling`: it ends in a comma, dash or
    an article, preposition or conjunction; else `none`. A bare number of characters cannot be seen in one caption,
    so `cut_lengths` names it: 125 in one shop's titles, say.
    """
    text = caption.rstrip()
    tail = text[-TAIL:]
    if ELLIPSIS.search(tail[-16:]):
        return "ellipsis"
    if len(caption) in cut_lengths and not tail.endswith((".", "!", "?", ")", "。")):
        return "cut_length"
    if _open_bracket(tail):
        return "open_bracket"
    return "dangling" if DANGLING.search(tail[-16:]) else NONE


def _open_bracket(tail: str) -> bool:
    """The last opening bracket has no closing one behind it; `:(` at the end is a face."""
    last = max(tail.rfind(bracket) for bracket in CLOSERS)
    if last < 0 or tail[last - 1 : last] in (":", ";", "-", "="):
        return False
    return CLOSERS[tail[last]] not in tail[last:]

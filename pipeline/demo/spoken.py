"""What of a picture generated captions name: the numbers, colours and shapes of its groups, however they are put.

The generator has many true sentences for a picture, and the token edit distance counts all but one as wrong.
"""

import re
from collections import Counter
from collections.abc import Hashable, Iterable, Iterator, Mapping
from typing import Any

from pipeline.demo.captions import NUMBERS, PLURAL
from pipeline.demo.scenes import COLOURS, SHAPES

NAMED = {plural: shape for shape in SHAPES for plural in (shape, PLURAL.get(shape, f"{shape}s"))}
COUNTS = {"a": 1, "an": 1, **{word: count for count, word in enumerate(NUMBERS)}, **{str(n): n for n in range(1, 5)}}
GROUP = re.compile(
    rf"\b({'|'.join(COUNTS)}) (?:\w+ )?({'|'.join(COLOURS)}) ({'|'.join(sorted(NAMED, key=len, reverse=True))})\b"
)
PARTS = ("numbers", "colours", "shapes", "groups")


def groups(caption: str) -> Iterator[tuple[int, str, str]]:
    """(number, colour, shape) of every group that a caption names."""
    for count, colour, shape in GROUP.findall(caption):
        yield COUNTS[count], colour, NAMED[shape]


def named(captions: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """Of the groups that true captions name, the shares whose number, colour, shape and all of these are written, too.

    Args:
        captions: each with what is `true` and what was `written`.
    """
    found, total = Counter[str](), 0
    for line in captions:
        true, written = list(groups(line["true"])), list(groups(line["written"]))
        total += len(true)
        found["groups"] += _shared(true, written)
        for place, part in enumerate(("numbers", "colours", "shapes")):
            found[part] += _shared([group[place] for group in true], [group[place] for group in written])
    return {part: found[part] / total for part in PARTS} if total else {}


def _shared(mine: Iterable[Hashable], theirs: Iterable[Hashable]) -> int:
    return sum((Counter(mine) & Counter(theirs)).values())

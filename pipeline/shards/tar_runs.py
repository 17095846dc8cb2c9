"""Samples that lie whole in a window and have nothing unusual about them: rows for many at a time.

Nearly every sample of a training set is one. `tar_rows.py` makes the same rows member by member, of any tar; tests
hold the two against each other.
"""

from collections.abc import Iterator
from functools import lru_cache
from itertools import pairwise, takewhile
from typing import NamedTuple

import xxhash

from pipeline.shards.rows import (
    IMAGE_RANKS,
    MAY_LEAD_OUT,
    Row,
    caption_in_json,
    fact,
    hash_of_facts,
    is_unsafe,
    read_caption,
    split_name,
)
from pipeline.shards.tar_header import BLOCK
from pipeline.shards.tar_window import Run


class Shape(NamedTuple):
    """Which member of a sample is what, by its place among them."""

    image: int | None
    """The preferred one."""
    text: int | None
    document: int | None
    by_suffix: tuple[int, ...]
    """All places, sorted by suffix."""


@lru_cache(1024)
def shape_of(suffixes: tuple[str, ...]) -> Shape | None:
    """None where samples of these suffixes need a closer look: one has none, or one comes twice."""
    place = {suffix: number for number, suffix in enumerate(suffixes)}
    if "" in place or len(place) < len(suffixes):
        return None
    image = min((suffix for suffix in suffixes if suffix in IMAGE_RANKS), key=IMAGE_RANKS.__getitem__, default="")
    by_suffix = tuple(place[suffix] for suffix in sorted(suffixes))
    return Shape(place.get(image), place.get("txt"), place.get("json"), by_suffix)


class Whole(NamedTuple):
    """The whole samples that a run begins with."""

    rows: list[Row]
    members: int
    """Of all of them."""
    suffixes: frozenset[str]
    """Of the last one."""


def whole_samples(run: Run, start: int) -> Whole:
    """Those that are known to be whole, since another one follows, up to the first unusual one.

    Args:
        run: members that come next in a tar.
        start: where the first one's header lies in it.
    """
    samples, suffixes = list(_samples(run.names)), [split_name(name)[1] for name in run.names]
    stop = samples[-1][1] if samples else 0
    spans = list(zip(run.starts[:stop], run.sizes[:stop], strict=True))
    contents = [run.window[first : first + size] for first, size in spans]
    digests = [xxhash.xxh3_128_hexdigest(content) for content in contents]
    facts = [fact(*one) for one in zip(suffixes[:stop], run.sizes[:stop], digests, strict=True)]
    shift = start - run.at
    members = [(name, first + shift, size) for name, (first, size) in zip(run.names, spans, strict=False)]
    rows = []
    for first, last, key, shape in samples:
        image = None if shape.image is None else first + shape.image
        caption, fault = _caption(contents[first:last], shape)
        rows.append(
            Row(
                start=run.starts[first] + shift - BLOCK,
                stop=run.starts[last] + shift - BLOCK,
                key=key,
                caption=caption,
                image_member=None if image is None else run.names[image],
                members=members[first:last],
                image_hash=None if image is None else digests[image],
                content_hash=hash_of_facts([facts[first + place] for place in shape.by_suffix]),
                reason="missing_image" if image is None else fault,
                image=None if image is None else contents[image],
            )
        )
    return Whole(rows, stop, frozenset(suffixes[samples[-1][0] : stop]) if samples else frozenset())


def _samples(names: list[str]) -> Iterator[tuple[int, int, str, Shape]]:
    """(first member, one after the last, key, shape) of each."""
    if MAY_LEAD_OUT.search("\n".join(names)):
        names = list(takewhile(lambda name: not is_unsafe(name), names))
    split = [split_name(name) for name in names]
    borders = [0, *(place for place, (one, next_) in enumerate(pairwise(split), 1) if one[0] != next_[0])]
    for first, last in pairwise(borders):
        shape = shape_of(tuple(suffix for _, suffix in split[first:last]))
        if shape is None:
            return
        yield first, last, split[first][0], shape


def _caption(contents: list[memoryview], shape: Shape) -> tuple[str | None, str | None]:
    text, fault = None, None
    if shape.document is not None:
        text, fault = caption_in_json(bytes(contents[shape.document]))
    if shape.text is not None:
        text = bytes(contents[shape.text])
    caption, reason = read_caption(text)
    return caption, fault or reason

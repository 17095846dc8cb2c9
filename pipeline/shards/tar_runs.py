"""Samples that lie whole in a window and have nothing unusual about them: rows for many at a time.

Nearly every sample of a training set is one. `tar_rows.py` makes the same rows member by member, of any tar; tests
hold the two against each other.
"""

from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple

import xxhash

from pipeline.shards.rows import (
    IMAGE_RANKS,
    MAY_LEAD_OUT,
    RowBatch,
    caption_in_json,
    fact,
    hash_of_facts,
    is_unsafe,
    read_caption,
    read_json_member,
    split_names,
)
from pipeline.shards.tar_header import BLOCK
from pipeline.shards.tar_window import Heads

MOST_MEMBERS = 100
"""Of a usual sample."""


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
    """None where samples of these suffixes need a closer look: one has none, one comes twice, or they are many."""
    place = {suffix: number for number, suffix in enumerate(suffixes)}
    if "" in place or len(place) < len(suffixes) or len(suffixes) > MOST_MEMBERS:
        return None
    image = min((suffix for suffix in suffixes if suffix in IMAGE_RANKS), key=IMAGE_RANKS.__getitem__, default="")
    by_suffix = tuple(place[suffix] for suffix in sorted(suffixes))
    return Shape(place.get(image), place.get("txt"), place.get("json"), by_suffix)


class WindowSamples:
    """Those of a window, by the plain headers in it."""

    def __init__(self, heads: Heads, window: memoryview) -> None:
        self._heads = heads
        self._window = window
        self._keys, self._suffixes = split_names(heads.names)
        self._usual = dict(self._usual_samples())

    def _usual_samples(self) -> list[tuple[int, tuple[int, Shape]]]:
        """First member -> (one after the last, shape) of each that is known to be whole, since another one follows."""
        keys, followed = self._keys, self._heads.followed
        borders = [0, *(number for number, (one, other) in enumerate(pairwise(keys), 1) if one != other)]
        spans = [(first, stop) for first, stop in pairwise(borders) if all(followed[first:stop])]
        shapes = [shape_of(tuple(self._suffixes[first:stop])) for first, stop in spans]
        found = [(first, (stop, shape)) for (first, stop), shape in zip(spans, shapes, strict=True) if shape]
        if MAY_LEAD_OUT.search("\n".join(self._heads.names)):
            names = self._heads.names
            found = [one for one in found if not any(map(is_unsafe, names[one[0] : one[1][0]]))]
        return found

    def batch(self, at: int, position: int) -> tuple[RowBatch, frozenset[str]] | None:
        """The usual samples of one shape that come next, and their suffixes; None where there is none.

        Args:
            at: place in the window where a sample begins.
            position: the same in the tar.
        """
        first = self._heads.number.get(at, -1)
        if (begins := self._usual.get(first)) is None:
            return None
        stop, shape = begins
        while (following := self._usual.get(stop)) is not None and following[1] is shape:  # of equal suffixes
            stop = following[0]
        suffixes = self._suffixes[first : begins[0]]
        return self._columns(first, stop, shape, position - at), frozenset(suffixes)

    def _columns(self, first: int, stop: int, shape: Shape, shift: int) -> RowBatch:
        heads, each = self._heads, len(shape.by_suffix)
        starts, sizes, names = heads.starts[first:stop], heads.sizes[first:stop], heads.names[first:stop]
        window = self._window
        contents = [window[start : start + size] for start, size in zip(starts, sizes, strict=True)]
        digests = list(map(xxhash.xxh3_128_hexdigest, contents))
        facts = list(map(fact, self._suffixes[first:stop], sizes, digests))
        in_order = zip(*(facts[place::each] for place in shape.by_suffix), strict=True)
        begins = [start + shift - BLOCK for start in [*starts[::each], heads.starts[stop]]]
        rows = len(begins) - 1
        captions, reasons = _captions(contents, shape)
        lacks_image = shape.image is None
        return RowBatch(
            starts=begins[:-1],
            stops=begins[1:],
            keys=self._keys[first:stop:each],
            captions=captions,
            image_members=[None] * rows if lacks_image else names[shape.image :: each],
            names=names,
            offsets=[start + shift for start in starts],
            sizes=sizes,
            image_hashes=[None] * rows if lacks_image else digests[shape.image :: each],
            content_hashes=list(map(hash_of_facts, in_order)),
            reasons=["missing_image"] * rows if lacks_image else reasons,
            images=[None] * rows if lacks_image else contents[shape.image :: each],
        )


def _captions(contents: list[memoryview], shape: Shape) -> tuple[list[str | None], list[str | None]]:
    """Captions of samples of one shape, and what is wrong with each."""
    each = len(shape.by_suffix)
    rows = len(contents) // each
    texts: list[bytes | None] = [None] * rows
    faults: list[str | None] = [None] * rows
    documents = [] if shape.document is None else list(map(bytes, contents[shape.document :: each]))
    if shape.text is not None:
        texts = list(map(bytes, contents[shape.text :: each]))
        faults = [read_json_member(document)[1] for document in documents] or faults
    elif documents:
        found = [caption_in_json(document) for document in documents]
        texts, faults = [text for text, _ in found], [fault for _, fault in found]
    read = list(map(read_caption, texts))
    reasons = [fault or reason for fault, (_, reason) in zip(faults, read, strict=True)]
    return [caption for caption, _ in read], reasons

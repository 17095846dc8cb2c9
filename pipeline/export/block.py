"""Consecutive samples in memory as they will lie in a tar, so that members are read to where they are written from.

Each byte is copied once less than by way of a bytes object a member, and headers are made for all members at once.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.export.direct import aligned
from pipeline.export.format import Sample

BLOCK = 512
PADDING = memoryview(bytes(BLOCK))


class Block:
    """Samples whose members stand behind a free block each, for its header, and are padded with zeros."""

    def __init__(
        self,
        keys: Sequence[str],
        suffixes: Sequence[Sequence[str]],
        sizes: npt.NDArray[np.int64],
        scores: Sequence[dict[str, Any]],
        room: Callable[[int], npt.NDArray[np.uint8]] = aligned,
    ) -> None:
        """Room for members of known sizes; their bytes are for the caller to fill in, and padding to clear.

        Args:
            keys: of the samples.
            suffixes: of the members of each, sorted.
            sizes: (m,) of all members.
            scores: per sample, see `Sample`.
            room: gives so many bytes that hold anything, see `aligned`.
        """
        self.keys = keys
        self.suffixes = suffixes
        self.scores = scores
        self.sizes = sizes
        taken = BLOCK + -(-self.sizes // BLOCK) * BLOCK
        stops = np.cumsum(taken)
        self.starts: npt.NDArray[np.int64] = stops - taken + BLOCK
        """(m,) where every member's bytes begin in `content`."""
        self.content = room(int(taken.sum()))

    def clear_padding(self) -> None:
        """Zeros behind every member up to its block's end; what is read across several members ends up there."""
        content = self.content.data
        stops = self.starts + self.sizes
        for stop, size in zip(stops.tolist(), (-stops % BLOCK).tolist(), strict=True):
            content[stop : stop + size] = PADDING[:size]

    @staticmethod
    def of(samples: Iterable[Sample]) -> "Block":
        """Samples that are in memory already."""
        held = list(samples)
        suffixes = [[suffix for suffix, _ in one.members] for one in held]
        sizes = np.array([len(content) for one in held for _, content in one.members], np.int64)
        block = Block([one.key for one in held], suffixes, sizes, [one.scores for one in held])
        block.clear_padding()
        for view, content in zip(block.views(), (content for one in held for _, content in one.members), strict=True):
            view[:] = content
        return block

    def names(self) -> list[str]:
        """Of every member."""
        return [
            f"{key}.{suffix}" for key, suffixes in zip(self.keys, self.suffixes, strict=True) for suffix in suffixes
        ]

    def views(self) -> list[memoryview]:
        """The place of every member's bytes."""
        places = zip(self.starts.tolist(), (self.starts + self.sizes).tolist(), strict=True)
        content = self.content.data
        return [content[start:stop] for start, stop in places]

    def samples(self) -> Iterator[Sample]:
        """One by one, for formats that are no tars."""
        views = iter(self.views())
        for key, suffixes, scores in zip(self.keys, self.suffixes, self.scores, strict=True):
            yield Sample(key, [(suffix, bytes(next(views))) for suffix in suffixes], scores)

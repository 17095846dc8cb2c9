"""Consecutive samples in memory as they will lie in a tar, so that members are read to where they are written from.

Each byte is copied once less than by way of a bytes object a member, and headers are made for all members at once.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.export.format import Sample

BLOCK = 512


class Block:
    """Samples whose members stand behind a free block each, for its header, and are padded with zeros."""

    def __init__(
        self, keys: Sequence[str], members: Sequence[Sequence[tuple[str, int]]], scores: Sequence[dict[str, Any]]
    ) -> None:
        """Room for members of known sizes; what `views` lead to is for the caller to fill.

        Args:
            keys: of the samples.
            members: per sample (suffix, size), sorted.
            scores: per sample, see `Sample`.
        """
        self.keys = keys
        self.suffixes = [[suffix for suffix, _ in one] for one in members]
        self.scores = scores
        self.sizes = np.array([size for one in members for _, size in one], np.int64)
        """(m,) of every member."""
        room = BLOCK + -(-self.sizes // BLOCK) * BLOCK
        stops = np.cumsum(room)
        self.starts: npt.NDArray[np.int64] = stops - room + BLOCK
        """(m,) where every member's bytes begin in `content`."""
        self.content = np.empty(room.sum(), np.uint8)
        self.content.reshape(-1, BLOCK)[stops[self.sizes % BLOCK > 0] // BLOCK - 1] = 0

    @staticmethod
    def of(samples: Iterable[Sample]) -> "Block":
        """Samples that are in memory already."""
        held = list(samples)
        members = [[(suffix, len(content)) for suffix, content in one.members] for one in held]
        block = Block([one.key for one in held], members, [one.scores for one in held])
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
        return [self.content.data[start:stop] for start, stop in places]

    def samples(self) -> Iterator[Sample]:
        """One by one, for formats that are no tars."""
        views = iter(self.views())
        for key, suffixes, scores in zip(self.keys, self.suffixes, self.scores, strict=True):
            yield Sample(key, [(suffix, bytes(next(views))) for suffix in suffixes], scores)

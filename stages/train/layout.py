"""Where every token of a batch stands, what it may attend to, and what is predicted there; numbers alone, no model.

A document is an image's tokens with the text around them. Captions of one image may share them: each caption is a
branch, which sees the document's shared beginning (branch 0) and itself. Several documents may stand in one row; each
counts its positions from 0 and sees nothing of the others. Losses are therefore those of one caption a row.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from schemas.errors import ContractError
from stages.train.packing import packed

Integers = npt.NDArray[np.int64]
Booleans = npt.NDArray[np.bool_]
PADDING = -1
"""Document of a place where nothing stands."""
NONE = -1
"""Visual token of a place with text, or with nothing."""


@dataclass(frozen=True)
class Said:
    """A caption as tokens, and what stands before it."""

    ids: Sequence[int]
    """What is predicted, one after another; at least one."""
    image: int | None
    """Number of its image among those shown; None: text without an image."""
    before: tuple[int, ...] = ()
    """Text tokens before the image."""
    between: tuple[int, ...] = ()
    """Text tokens between image and caption."""

    @property
    def beginning(self) -> tuple[object, ...]:
        """What captions must have in common to share it."""
        return self.image, self.before, self.between


@dataclass(frozen=True)
class Layout:
    """R rows of T places each, and L labels."""

    tokens: Integers
    """(R, T) id of a text token; 0 where none stands."""
    visual: Integers
    """(R, T) number of the visual token, counted through all images; `NONE` where none stands."""
    positions: Integers
    """(R, T) position id, from 0 in every document; 0 where nothing stands."""
    documents: Integers
    """(R, T) number of the document, or `PADDING`."""
    branches: Integers
    """(R, T) branch of the document; 0: what all of its branches see."""
    labels: Integers
    """(L,) ids to predict, caption by caption."""
    places: Integers
    """(L,) the place that predicts it, as row * T + column."""
    samples: Integers
    """(L,) number of the caption it belongs to."""

    @cached_property
    def is_plain(self) -> bool:
        """Whether each row is one caption from the row's start on, so that causal attention is all that it takes."""
        there = self.documents != PADDING
        alone = np.where(there, self.documents == self.documents[:, :1], True).all() and (self.branches <= 1).all()
        return bool(alone and (np.where(there, self.positions, self._columns) == self._columns).all())

    @property
    def _columns(self) -> Integers:
        return np.arange(self.tokens.shape[1])[None]

    def without(self, gone: Booleans, *, renumber: bool) -> "tuple[Layout, Booleans]":
        """The layout without some places, text moved together; and which of the places here are still there (R, T).

        Args:
            gone: (R, T) what is left out; only what all branches of a document see.
            renumber: whether positions are counted anew.

        Raises:
            ContractError: a place that is left out predicts a label.
        """
        left = (self.documents != PADDING) & ~gone
        width = int(left.sum(axis=1).max(initial=0))
        order = np.argsort(~left, axis=1, kind="stable")[:, :width]
        there = np.take_along_axis(left, order, axis=1)
        positions = self.positions - self._gone_before(gone) if renumber else self.positions
        grids = ((self.tokens, 0), (self.visual, NONE), (positions, 0), (self.documents, PADDING), (self.branches, 0))
        kept = [np.where(there, np.take_along_axis(grid, order, axis=1), nothing) for grid, nothing in grids]
        number = np.full(self.tokens.shape, NONE)
        np.put_along_axis(number, order, np.arange(there.size).reshape(there.shape), axis=1)
        number[~left] = NONE
        places = number.ravel()[self.places]
        if (places == NONE).any():
            raise ContractError("a place that predicts a label cannot be left out")
        return Layout(kept[0], kept[1], kept[2], kept[3], kept[4], self.labels, places, self.samples), left

    def _gone_before(self, gone: Booleans) -> Integers:
        """(R, T) how many places of its document stand before each and are left out."""
        count = np.cumsum(gone, axis=1)
        starts = np.ones(gone.shape, bool)
        starts[:, 1:] = self.documents[:, 1:] != self.documents[:, :-1]
        return np.asarray(count - np.maximum.accumulate(np.where(starts, count - gone, 0), axis=1), np.int64)

    def without_visual(self, start: int) -> "Layout":
        """The same labels behind text alone, at the positions that they have behind the image.

        Args:
            start: token that stands for an image whose last place predicts the caption's first token.
        """
        predicts = np.zeros(self.tokens.size, bool)
        predicts[self.places] = True
        starts = predicts.reshape(self.tokens.shape) & (self.visual != NONE)
        tokens, visual = np.where(starts, start, self.tokens), np.where(starts, NONE, self.visual)
        return replace(self, tokens=tokens, visual=visual).without(visual != NONE, renumber=False)[0]

    @property
    def efficiency(self) -> float:
        """Share of the places where something stands."""
        return float((self.documents != PADDING).mean()) if self.documents.size else 1.0


def lay_out(said: Sequence[Said], visual: int, *, pack: int | None = None, share: bool = False) -> Layout:
    """Documents `[before][image][between][caption]...`, each in a row of its own, or several in a row.

    Args:
        said: the captions.
        visual: places that an image takes up.
        pack: most places of a row; None: a row a document.
        share: whether captions with the same beginning stand in one document.

    Raises:
        ContractError: a caption without tokens, or with nothing before it.
        CuveeError: a document is longer than `pack`.
    """
    documents = [_document(said, members, visual) for members in _members(said, share)]
    sizes = [document.places.shape[1] for document in documents]
    rows = [[number] for number in range(len(sizes))] if pack is None else packed(sizes, pack)
    width = max((sum(sizes[number] for number in there) for there in rows), default=0)
    grid = np.zeros((5, len(rows), width), np.int64)
    grid[1], grid[3] = NONE, PADDING
    starts = np.zeros(len(documents), np.int64)
    for row, there in enumerate(rows):
        column = 0
        for number in there:
            starts[number] = row * width + column
            part = grid[:, row, column : column + sizes[number]]
            part[[0, 1, 2, 4]], part[3] = documents[number].places, number
            column += sizes[number]
    lines = np.concatenate(
        [document.lines(start) for document, start in zip(documents, starts.tolist(), strict=True)], axis=1
    )
    labels, places, samples = lines[:, np.argsort(lines[2], kind="stable")]
    return Layout(grid[0], grid[1], grid[2], grid[3], grid[4], labels, places, samples)


def _members(said: Sequence[Said], share: bool) -> list[list[int]]:
    """The captions of each document, in the order of its first one."""
    found: dict[object, list[int]] = {}
    for number, one in enumerate(said):
        alone = not share or one.image is None
        found.setdefault(number if alone else one.beginning, []).append(number)
    return list(found.values())


@dataclass(frozen=True)
class _Document:
    places: Integers
    """(4, T) token, visual token, position and branch per place."""
    labels: list[tuple[list[int], list[int], int]]
    """Per caption: ids, the places that predict them, its number."""

    def lines(self, start: int) -> Integers:
        """(3, L) label, place and caption, where the document starts at place `start`."""
        ids = [label for one, _, _ in self.labels for label in one]
        places = [start + place for _, at, _ in self.labels for place in at]
        return np.array([ids, places, [number for one, _, number in self.labels for _ in one]], np.int64)


def _document(said: Sequence[Said], members: Sequence[int], visual: int) -> _Document:
    first = said[members[0]]
    count = 0 if first.image is None else visual
    shared = len(first.before) + count + len(first.between)
    if not shared or not all(len(said[number].ids) for number in members):
        raise ContractError("a caption needs at least one token, and a place before its first one to predict it")
    tokens = [*first.before, *[0] * count, *first.between]
    shown = [NONE] * shared
    shown[len(first.before) : len(first.before) + count] = [(first.image or 0) * count + i for i in range(count)]
    positions, branches, labels = list(range(shared)), [0] * shared, []
    for branch, number in enumerate(members, start=1):
        ids = list(said[number].ids)
        rest, start = len(ids) - 1, len(tokens)
        labels.append((ids, [shared - 1, *range(start, start + rest)], number))
        tokens += ids[:-1]
        shown += [NONE] * rest
        positions += range(shared, shared + rest)
        branches += [branch] * rest
    return _Document(np.array([tokens, shown, positions, branches], np.int64), labels)

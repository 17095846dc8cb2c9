"""Which rows go for which kept row: one pass over them, or by halves where captions are compared as they are asked for.

Work is by row and class, never by pair of rows.
"""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from schemas.errors import ContractError
from stages.duplicates.bimodal_duplicates.alike import Alike, Partners, Places
from stages.duplicates.bimodal_duplicates.asked import Asked, Texts

Doubles = npt.NDArray[np.float64]
Found = tuple[int, float]
"""A kept row, and how similar it is."""


def witnesses(images: Alike, captions: Alike | Texts, both: bool) -> tuple[Places, Doubles]:
    """(n,) for each row the first kept row before it that it duplicates, -1 for kept rows; (n,) their similarity.

    A duplicate is like the other one on both sides, or with `both` off on either. Its similarity is the lesser of the
    two, or the greater.
    """
    n = len(images.classes)
    fates = Fates(images, both, np.full(n, -1, np.int64), np.ones(n))
    if isinstance(captions, Alike):
        fates.settle(np.arange(n), captions)
        return fates.partner, fates.similarity
    groups = images.groups() if both else np.zeros(n, np.int64)
    rows = np.flatnonzero((groups >= 0) & ((captions.classes >= 0) | (not both)))
    if both:  # what like images join with nothing stays
        rows = rows[np.bincount(groups[rows])[groups[rows]] > 1]
    fates.settle_by_halves(rows, Asked.of(captions, rows, groups))
    return fates.partner, fates.similarity


@dataclass(frozen=True)
class Fates:
    """What becomes of n rows; all stay until they are found to go."""

    images: Alike
    both: bool
    partner: Places
    similarity: Doubles

    def settle(self, rows: Places, captions: Alike) -> Places:
        """Decide rows, in order, none of which is like one that is kept before all of them; gives those that stay."""
        kept = self._kept()
        for row in rows.tolist():
            if not self._goes(row, kept, captions):
                kept.keep(row, int(self.images.classes[row]), int(captions.classes[row]))
        return rows[self.partner[rows] < 0]

    def settle_by_halves(self, rows: Places, captions: Asked) -> Places:
        """The same, where all that is close among the rows may be too much to hold.

        What stays of the first half takes its like out of the second, and only the rest of that is compared with each
        other. So of a crowd of n near copies few pairs are ever looked at.
        """
        alike = captions.within(rows)
        if alike is not None:
            return self.settle(rows, alike)
        half = len(rows) // 2
        first = self.settle_by_halves(rows[:half], captions)
        kept, own = self._kept(), captions.given.classes
        for row in first.tolist():
            kept.keep(row, int(self.images.classes[row]), int(own[row]))
        for some, close in captions.between(first, rows[half:]):
            for row in some.tolist():
                self._goes(row, kept, close)
        left = rows[half:][self.partner[rows[half:]] < 0]
        return np.concatenate([first, self.settle_by_halves(left, captions)])

    def _kept(self) -> "Kept":
        return KeptByBoth() if self.both else KeptByEither()

    def _goes(self, row: int, kept: "Kept", captions: Alike) -> bool:
        found = kept.first_like(self.images.partners(row), captions.partners(row))
        if found is not None:
            self.partner[row], self.similarity[row] = found
        return found is not None


class Kept:
    """The rows kept so far, by what they are like."""

    def keep(self, row: int, image: int, caption: int) -> None:
        """Remember a kept row with the classes of its image and caption."""
        raise ContractError(f"{type(self).__name__} does not implement keep()")

    def first_like(self, images: Partners, captions: Partners) -> Found | None:
        """The first kept row that is like one with these partners."""
        raise ContractError(f"{type(self).__name__} does not implement first_like()")


@dataclass
class KeptByBoth(Kept):
    """Of rows with one image and one caption at most one is kept."""

    rows: dict[int, dict[int, int]] = field(default_factory=dict)
    """Image class -> caption class -> row."""

    def keep(self, row: int, image: int, caption: int) -> None:
        """A row without an image or caption to compare by is like nothing."""
        if image >= 0 and caption >= 0:
            self.rows.setdefault(image, {})[caption] = row

    def first_like(self, images: Partners, captions: Partners) -> Found | None:
        """The smallest row among those of these images that have one of these captions."""
        best: Found | None = None
        for image, by_image in images.items():
            having = self.rows.get(image, {})
            shorter, longer = (having, captions) if len(having) < len(captions) else (captions, having)
            for caption in shorter:
                if caption in longer and (best is None or having[caption] < best[0]):
                    best = having[caption], min(by_image, captions[caption])
        return best


@dataclass
class KeptByEither(Kept):
    """Of rows with one image, or one caption, at most one is kept."""

    images: dict[int, int] = field(default_factory=dict)
    captions: dict[int, int] = field(default_factory=dict)
    """Class -> row."""

    def keep(self, row: int, image: int, caption: int) -> None:
        """By each side that there is."""
        if image >= 0:
            self.images[image] = row
        if caption >= 0:
            self.captions[caption] = row

    def first_like(self, images: Partners, captions: Partners) -> Found | None:
        """The smallest row among those of these images and those of these captions."""
        sides = ((self.images, images), (self.captions, captions))
        found = [(rows[each], -value) for rows, partners in sides for each, value in partners.items() if each in rows]
        if not found:
            return None
        row, value = min(found)
        return row, -value

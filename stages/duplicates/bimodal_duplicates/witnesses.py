"""One pass over the rows: which go for which kept row. Work is by row and class, never by pair of rows."""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from schemas.errors import ContractError
from stages.duplicates.bimodal_duplicates.alike import Alike, Partners, Places

Doubles = npt.NDArray[np.float64]
Found = tuple[int, float]
"""A kept row, and how similar it is."""


def witnesses(images: Alike, captions: Alike, both: bool) -> tuple[Places, Doubles]:
    """(n,) for each row the first kept row before it that it duplicates, -1 for kept rows; (n,) their similarity.

    A duplicate is like the other one on both sides, or with `both` off on either. Its similarity is the lesser of the
    two, or the greater.
    """
    kept: Kept = KeptByBoth() if both else KeptByEither()
    n = len(images.classes)
    partner, similarity = np.full(n, -1, np.int64), np.ones(n)
    for row in range(n):
        image, caption = int(images.classes[row]), int(captions.classes[row])
        found = kept.first_like(images.partners(row), captions.partners(row))
        if found is None:
            kept.keep(row, image, caption)
        else:
            partner[row], similarity[row] = found
    return partner, similarity


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

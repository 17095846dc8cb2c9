"""What is alike on one side of the rows: classes of equals, and classes that are close to each other."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import polars as pl

from stages.near_texts.components import stars

Places = npt.NDArray[np.int64]
Doubles = npt.NDArray[np.float64]
Partners = Mapping[int, float]


@dataclass(frozen=True)
class Alike:
    """n rows in order; a row is like those of its class, and those of the classes close to that one."""

    classes: Places
    """(n,) -1: like nothing."""
    close: dict[int, dict[int, float]] = field(default_factory=dict)
    """Class -> class close to it -> similarity; both ways."""

    def partners(self, row: int) -> Partners:
        """Class -> similarity of all that is like the row, its own class included."""
        own = int(self.classes[row])
        return {} if own < 0 else {own: 1.0, **self.close.get(own, {})}

    def groups(self) -> Places:
        """(n,) one number >= 0 for rows that a chain of close classes joins; -1: like nothing."""
        edges = [(one, other) for one, others in self.close.items() for other in others]
        group = np.arange(int(self.classes.max(initial=-1)) + 1)
        if edges:
            classes, roots = stars(*np.array(edges, np.int64).T)
            group[classes] = roots
        return np.where(self.classes < 0, -1, group[self.classes]) if len(group) else self.classes


def nothing_alike(n: int) -> Alike:
    """n rows that are like nothing."""
    return Alike(np.full(n, -1, np.int64))


def classes_of(keys: pl.Series) -> tuple[Places, Places]:
    """(n,) a number for each distinct key in the order in which they first occur, -1 for null; and their first rows."""
    rows = keys.alias("key").to_frame().with_row_index("row")
    first = rows.select(pl.col("row").min().over("key"))["row"].to_numpy().astype(np.int64)
    there = keys.is_not_null().to_numpy()
    new = there & (first == np.arange(len(keys)))
    return np.where(there, (np.cumsum(new) - 1)[first], -1), np.flatnonzero(new)


def with_pairs(classes: Places, first: Places, second: Places, similarity: Doubles) -> Alike:
    """The classes, and which of them are close."""
    close: dict[int, dict[int, float]] = {}
    for one, other, value in zip(first.tolist(), second.tolist(), similarity.tolist(), strict=True):
        close.setdefault(one, {})[other] = value
        close.setdefault(other, {})[one] = value
    return Alike(classes, close)

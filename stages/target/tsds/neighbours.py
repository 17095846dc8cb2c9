"""The nearest rows of each example in a pool that is read in parts, exactly."""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import polars as pl

from stages.rule import Context
from stages.transport.distances import squared_distances
from stages.transport.space import Space
from stages.vectors import Doubles, Vectors

NEAR = {"example": pl.Int64, "squared": pl.Float64, "uid": pl.String}


def radii(rows: pl.LazyFrame, context: Context, space: Space, examples: Vectors, neighbours: int, most: int) -> Doubles:
    """(M,) squared distances within which each example has its k nearest rows (more where distances are equal).

    k is `neighbours`, or fewer: the most for which no more than `most` different rows are near to any example, at
    least 1.
    """

    def nearest(part: pl.DataFrame) -> pl.DataFrame:
        found = _Nearest(len(examples), neighbours)
        uids = [
            found.take(uids, squared_distances(points, examples, space.joined))
            for uids, points in space.slices(part, "the pool")
        ]
        return found.frame(pl.concat([pl.Series("uid", [], pl.String), *uids]))

    found = pl.concat(context.each_part(rows, nearest)).sort("example", "squared")
    found = found.with_columns(pl.col("squared").rank("min").over("example").alias("rank"))
    ranks = np.sort(
        found.filter(pl.col("rank") <= neighbours).group_by("uid").agg(pl.col("rank").min())["rank"].to_numpy()
    )
    k = neighbours if len(ranks) <= most else max(int(ranks[most]) - 1, 1)
    reached = found.filter(pl.col("rank") <= k).group_by("example").agg(pl.col("squared").max()).sort("example")
    return reached["squared"].to_numpy()


@dataclass
class _Nearest:
    """The rows of one part that are among the nearest so far, equal distances included."""

    examples: int
    neighbours: int
    seen: int = 0
    values: list[Doubles] = field(default_factory=list)
    places: list[npt.NDArray[np.int64]] = field(default_factory=list)
    """Of the row in the part, and of the example."""
    closest: Doubles | None = None
    """(M, k) the smallest distances so far."""

    def take(self, uids: pl.Series, squared: Doubles) -> pl.Series:
        """Look at further rows with squared distances (n, M)."""
        turned = np.ascontiguousarray(squared.T)
        known = turned if self.closest is None else np.concatenate([self.closest, turned], axis=1)
        k = min(self.neighbours, known.shape[1])
        self.closest = np.partition(known, k - 1, axis=1)[:, :k] if known.shape[1] else known
        example, row = np.nonzero(turned <= self._radius()[:, None])
        self.values.append(turned[example, row])
        self.places.append(np.stack([example, row + self.seen]))
        self.seen += len(squared)
        return uids

    def frame(self, uids: pl.Series) -> pl.DataFrame:
        """(example, squared, uid) of what is left."""
        if self.closest is None:
            return pl.DataFrame(schema=NEAR)
        values, (example, row) = np.concatenate(self.values), np.concatenate(self.places, axis=1)
        left = values <= self._radius()[example]
        return pl.DataFrame({"example": example[left], "squared": values[left], "uid": uids.gather(row[left])})

    def _radius(self) -> Doubles:
        assert self.closest is not None
        radius: Doubles = self.closest.max(axis=1)
        return radius

"""Which rows of a score table are close by an embedding column: clusters are the pieces of work, here or on a cluster.

Rows are compared with those of their own cluster and, with `probe` above 1, with those that have one of their next
centroids for their own. A piece is some clusters; whoever does it reads their embeddings itself.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from math import isqrt

import numpy as np
import polars as pl
import xxhash

from schemas.errors import CuveeError
from stages.clusters import probed_centroids, train_centroids, training_rows
from stages.near_vectors.similarity import Flags, Places, Rows, above, largest_earlier
from stages.rule import Context, Mapper
from stages.vectors import Doubles, Vectors, norms, vectors

MOST_CLUSTERS = 50_000
PURPOSE = "semdedup"
"""Of the hash that draws what k-means is trained on."""
ROWS_PER_PIECE = 100_000
MOST_PAIRS = 1 << 27
"""What is held of pairs; each takes 24 bytes."""


@dataclass(frozen=True)
class Compared:
    """By which columns rows are compared; close by `column` counts only if the cosine by `second` is above `above`."""

    column: str
    second: str | None = None
    above: float = 0.0

    def known(self, rows: pl.LazyFrame) -> pl.LazyFrame:
        """(uid, columns) of the rows that have an embedding, in uid order."""
        names = [self.column, *([self.second] if self.second else [])]
        return rows.select("uid", *names).filter(pl.col(self.column).is_not_null()).sort("uid")

    def matrices(self, rows: pl.DataFrame, width: int) -> tuple[Vectors, Vectors | None]:
        """The embeddings of `known` rows and those that have a veto, zeros where there is none.

        Raises:
            CuveeError: embeddings of unequal length, of another length than `width` (0: any), or of length zero.
        """
        first = vectors(rows[self.column].to_arrow(), width)
        if width and first.shape[1] != width:
            raise CuveeError(
                f"embeddings of {first.shape[1]} and {width} numbers in one column; were two models mixed?"
            )
        if not norms(first).all():
            raise CuveeError("an embedding of length zero; the stage that wrote it broke its promise of unit norm")
        if self.second is None:
            return first, None
        there = rows[self.second].is_not_null()
        found = vectors(rows[self.second].drop_nulls().to_arrow())
        second = np.zeros((len(rows), found.shape[1]), np.float16)
        second[there.to_numpy()] = found
        return first, second


@dataclass(frozen=True)
class Neighbours:
    """n rows with an embedding, in uid order, and where they stand."""

    rows: pl.LazyFrame
    compared: Compared
    uids: pl.Series
    clusters: Places
    """(n, p) the nearest centroids, the nearest first."""
    cosine: Doubles
    """(n,) cosine with the nearest."""
    digests: pl.Series
    """(n,) equal for rows that are equal in all that is compared."""
    mapper: Mapper

    def largest(self, order: Places) -> tuple[Doubles, Places]:
        """M and partner of `largest_earlier` for places in `order` (a permutation of n), over all clusters."""
        found = self._each_cluster(largest_earlier_ranks, order, np.ones(len(order), np.bool_))
        rank, partner, value = (np.concatenate(side) for side in zip(*found, strict=True))
        best = np.lexsort((partner, -value, rank))
        best = best[np.diff(rank[best], prepend=-1) != 0]
        return value[best], partner[best]

    def above(self, order: Places, chosen: Flags, threshold: float) -> tuple[Places, Places, Doubles]:
        """Pairs (first, second, cosine) of chosen rows above the threshold, as places in `order`, by (second, first).

        Raises:
            CuveeError: there are more than `MOST_PAIRS`.
        """
        found = self._each_cluster(partial(ranks_above, threshold=threshold), order, chosen)
        if (n := sum(len(part[0]) for part in found)) > MOST_PAIRS:
            raise CuveeError(
                f"{n} pairs are more similar than {threshold:.4f}, and {MOST_PAIRS} can be held; "
                "raise `keep` or lower `epsilon`, or raise `clusters`"
            )
        nothing = np.zeros(0, np.int64)
        parts = [(nothing, nothing, np.zeros(0)), *found]
        first, second, value = (np.concatenate(side) for side in zip(*parts, strict=True))
        by = np.lexsort((first, second))
        first, second, value = first[by], second[by], value[by]
        once = np.diff(second * len(order) + first, prepend=-1) != 0
        return first[once], second[once], value[once]

    def _each_cluster(self, find: "Find", order: Places, chosen: Flags) -> list[tuple[Places, Places, Doubles]]:
        work = partial(_compare, rows=self.rows, compared=self.compared, find=find)
        return [part for parts in self.mapper(work, self._pieces(order, chosen)) for part in parts]

    def _pieces(self, order: Places, chosen: Flags) -> Iterator[pl.DataFrame]:
        """Some whole clusters each: (uid, cluster, rank, guest), by (cluster, rank)."""
        probe = self.clusters.shape[1]
        place = np.empty(len(order), np.int64)
        place[order] = np.arange(len(order))
        row = np.repeat(np.flatnonzero(chosen), probe)
        cluster, guest = self.clusters[chosen].ravel(), np.tile(np.arange(probe) > 0, int(chosen.sum()))
        by = np.lexsort((place[row], cluster))
        row, cluster, guest = row[by], cluster[by], guest[by]
        starts = np.flatnonzero(np.diff(cluster, prepend=-1))
        begin = 0
        for end in [*starts[1:].tolist(), len(row)]:
            if end - begin >= ROWS_PER_PIECE or (end == len(row) and end > begin):
                some = slice(begin, end)
                facts = {"cluster": cluster[some], "rank": place[row[some]], "guest": guest[some]}
                yield pl.DataFrame({"uid": self.uids.gather(row[some]), **facts})
                begin = end


Find = Callable[[Rows], tuple[Places, Places, Doubles]]


def largest_earlier_ranks(rows: Rows) -> tuple[Places, Places, Doubles]:
    """(place, partner, M) of every row."""
    largest, partner = largest_earlier(rows)
    return np.arange(len(largest)), partner, largest


def ranks_above(rows: Rows, threshold: float) -> tuple[Places, Places, Doubles]:
    """(first, second, cosine) of every pair above the threshold."""
    return above(rows, threshold)


def _compare(
    piece: pl.DataFrame, rows: pl.LazyFrame, compared: Compared, find: Find
) -> list[tuple[Places, Places, Doubles]]:
    """What `find` says of each cluster of a piece, in ranks instead of places; -1 stays."""
    found = compared.known(rows.join(piece.select("uid").unique().lazy(), on="uid", how="semi")).collect()
    first, second = compared.matrices(found, 0)
    numbered = found.select("uid").with_row_index("at")
    at = piece.select("uid").join(numbered, on="uid", how="left", maintain_order="left")["at"].to_numpy()
    rank, guest = piece["rank"].to_numpy(), piece["guest"].to_numpy()
    results = []
    for some in np.split(np.arange(len(piece)), np.flatnonzero(np.diff(piece["cluster"].to_numpy())) + 1):
        own = at[some]
        vetoes = None if second is None else second[own]
        one, other, value = find(Rows(first[own], guest[some] if guest[some].any() else None, vetoes, compared.above))
        ranks = np.append(rank[some], -1)  # -1, for none, is the last place
        results.append((ranks[one], ranks[other], value))
    return results


@dataclass(frozen=True)
class Clustering:
    """How rows are brought into clusters."""

    compared: Compared
    clusters: int | None = None
    """Default: the square root of the number of rows."""
    probe: int = 1

    def neighbours(
        self, rows: pl.LazyFrame, context: Context, pinned: Vectors | None, collapse: bool
    ) -> tuple[Neighbours, Vectors] | None:
        """The rows with an embedding, at the nearest of the pinned or else of fitted centroids; None if there are none.

        Raises:
            CuveeError: see `Compared.matrices`.
        """
        compared = self.compared
        known = compared.known(rows) if context.parts else compared.known(rows).collect().lazy()
        uids = known.select("uid").collect()["uid"]
        if uids.is_empty():
            return None
        centroids = self._fitted(known, uids, context.seed) if pinned is None else pinned
        assign = partial(_assign, compared=compared, centroids=centroids, probe=self.probe, digests=collapse)
        parts = context.each_part(rows, assign)
        by = pl.concat([part[0] for part in parts]).arg_sort()
        numbers, cosine = (np.concatenate([part[side] for part in parts])[by] for side in (1, 2))
        digests = pl.concat([part[3] for part in parts]).gather(by)
        return Neighbours(known, compared, uids, numbers, cosine, digests, context.map), centroids

    def _fitted(self, known: pl.LazyFrame, uids: pl.Series, seed: int) -> Vectors:
        clusters = self.clusters or min(max(isqrt(len(uids)), 1), MOST_CLUSTERS)
        chosen = uids.gather(training_rows(uids.to_list(), clusters, seed, PURPOSE)).to_frame()
        sample = known.join(chosen.lazy(), on="uid", how="semi").sort("uid").collect()
        return train_centroids(self.compared.matrices(sample, 0)[0], clusters, seed)


def _assign(
    part: pl.DataFrame, compared: Compared, centroids: Vectors, probe: int, digests: bool
) -> tuple[pl.Series, Places, Doubles, pl.Series]:
    """(uids, nearest centroids, cosine with the nearest, digests) of a part's rows."""
    known = compared.known(part.lazy()).collect()
    first, second = compared.matrices(known, centroids.shape[1])
    numbers, cosine = probed_centroids(first, centroids, probe)
    named = _digests(known["uid"], first, second) if digests else pl.Series([None] * len(known), dtype=pl.String)
    return known["uid"], numbers, cosine[:, 0], named


def _digests(uids: pl.Series, first: Vectors, second: Vectors | None) -> pl.Series:
    """XXH3-128 of all that is compared of a row; its uid where nothing can be close to it for want of the second."""
    both = first if second is None else np.concatenate([first, second], axis=1)
    found = [xxhash.xxh3_128_hexdigest(row.tobytes()) for row in both]
    there = np.ones(len(first), np.bool_) if second is None else np.any(second, axis=1)
    named = pl.DataFrame({"uid": uids, "digest": pl.Series(found, dtype=pl.String), "there": there})
    return named.select(pl.when("there").then("digest").otherwise("uid").alias("digest"))["digest"]

"""DEFT-UCS (Das and Khetan, arXiv:2310.16776): a core-set of easy and hard rows of each cluster, beside a random base.

Embeddings are clustered; each cluster gives equally many rows, a share of them the nearest to its centroid (easy), the
others the farthest (hard), from what a uniformly drawn base set leaves. Changed: cached CLIP embeddings instead of
Sentence-T5; k-means learns from a sample of all rows, the base set included, so that its centroids can be pinned. The
authors take one cluster per task of their data; the defaults here are ours.
"""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
import polars as pl
from pydantic import Field

from schemas.errors import CuveeError
from stages.budget import Mask
from stages.clusters import fit_centroids, nearest_centroids, training_rows
from stages.fit import Fit
from stages.noise import uniform_noise
from stages.order import share_of
from stages.quotas import Integers, places_within, quotas
from stages.rule import Context, present_and_missing
from stages.selector import Ranking, Selector
from stages.vectors import Vectors, norms, vectors

Doubles = npt.NDArray[np.float64]


@dataclass(frozen=True)
class CoreSet:
    """Which of n rows are chosen, and as what."""

    score: Doubles
    """(n,) falling from 1 towards 0 through each part of the set, so that a smaller budget thins all alike; else 0."""
    quotas: Integers
    """(k,) rows that each cluster gave, the base set aside."""
    easy: Integers
    """(k,) of these, the nearest ones."""
    base: Mask
    """(n,)"""
    near: Mask
    """(n,) given by its cluster as one of the nearest."""
    far: Mask
    """(n,) as one of the farthest."""


def core_set(
    cluster: Integers, cosine: Doubles, noise: Doubles, sizes: tuple[int, int, int], easy_share: float
) -> CoreSet:
    """Choose rows, given in uid order.

    Args:
        cluster: (n,) number of the nearest centroid.
        cosine: (n,) with that centroid; higher is nearer. Equals by uid.
        noise: (n,) uniform; the base set are the rows with the lowest.
        sizes: clusters, rows of the base set, rows of the whole set.
        easy_share: of a cluster's quota, rounded up.
    """
    clusters, base_rows, total = sizes
    base = np.zeros(len(cluster), np.bool_)
    base[np.argsort(noise, kind="stable")[:base_rows]] = True
    rest = np.flatnonzero(~base)
    there = np.bincount(cluster[rest], minlength=clusters)
    given = quotas(np.ones(clusters), there, total - base_rows)
    easy = np.array([share_of(easy_share, int(quota)) for quota in given], np.int64)
    near, mine = places_within(cluster[rest], -cosine[rest]), cluster[rest]
    far = there[mine] - 1 - near
    score = np.zeros(len(cluster))
    score[base] = 1 - places_within(np.zeros(base_rows, np.int64), noise[base]) / max(base_rows, 1)
    one, other = _left(near, easy[mine]), _left(far, (given - easy)[mine])
    score[rest] = np.maximum(one, other)
    return CoreSet(score, given, easy, base, *(_at(rest[left > 0], len(cluster)) for left in (one, other)))


def _left(place: Integers, quota: Integers) -> Doubles:
    """1 - place / quota while it is above 0, else 0."""
    left: Doubles = np.maximum(1 - place / np.maximum(quota, 1), 0) * (quota > 0)
    return left


def _at(places: Integers, rows: int) -> Mask:
    """(n,) True at these places."""
    found = np.zeros(rows, np.bool_)
    found[places] = True
    return found


class Deft(Selector):
    """A base set of `base` x budget rows drawn uniformly; the rest in equal parts from each cluster, near and far.

    A cluster that has too few rows gives all, the others make up for it. A budget of tokens is taken for as many rows
    as captions of mean length would fill; what that leaves over is drawn at random, what it lacks is cut from all
    parts alike; evidence is of the rows that are kept. Rows without an embedding are dropped as `<column>_missing`.
    Learned: the centroids. Beyond one machine the parts hand in the embeddings of at most 256 rows a cluster, and of
    the others the nearest centroid.
    """

    version: ClassVar[int] = 2
    kind: Literal["deft"] = "deft"
    embedding: Literal["image_embedding", "text_embedding"] = "image_embedding"
    clusters: int = Field(10, ge=1, le=50_000)
    easy: float = Field(0.5, ge=0, le=1)
    """Share of a cluster's rows that are its nearest; the others are its farthest."""
    base: float = Field(0.2, ge=0, le=1)
    """Share of the budget that is drawn at random."""

    def reads(self) -> tuple[str, ...]:
        """The embedding."""
        return (self.embedding,)

    def rank(self, rows: pl.LazyFrame, context: Context) -> Ranking:
        """Cluster, or take the pinned centroids; share the budget out.

        Raises:
            CuveeError: more is asked for than there is; embeddings of unequal length or of length zero.
        """
        eligible, missing = present_and_missing(rows, context, self.reads())
        wanted = self.affordable(rows, eligible, missing, context)
        fit = context.fit or self._learn(rows, eligible["uid"].to_list(), context)
        near = self._nearest(rows, fit.arrays["centroids"], context)
        noise = uniform_noise(near["uid"].to_list(), context.seed, "deft base")
        sizes = (len(fit.arrays["centroids"]), share_of(self.base, wanted), wanted)
        found = core_set(near["cluster"].to_numpy(), near["cosine"].to_numpy(), noise, sizes, self.easy)
        ranked = near.select("uid", pl.Series("score", found.score))
        kept = self.chosen(rows, ranked, context)
        return Ranking(ranked, missing, _evidence(found, near["cluster"].to_numpy(), kept), fit)

    def _learn(self, rows: pl.LazyFrame, uids: list[str], context: Context) -> Fit:
        k = min(self.clusters, len(uids))
        sample = pl.DataFrame({"uid": [uids[place] for place in training_rows(uids, k, context.seed, self.kind)]})
        columns = ("uid", self.embedding)
        found = context.each_part(rows, lambda part: part.select(columns).join(sample, on="uid", how="semi"))
        training = pl.concat(found).sort("uid")
        matrix = self._matrix(training)
        return Fit({"centroids": fit_centroids(matrix, training["uid"].to_list(), k, context.seed, self.kind)})

    def _nearest(self, rows: pl.LazyFrame, centroids: Vectors, context: Context) -> pl.DataFrame:
        """(uid, cluster, cosine) of every row that has an embedding, in uid order."""

        def nearest(part: pl.DataFrame) -> pl.DataFrame:
            known = part.drop_nulls(self.embedding)
            cluster, cosine = nearest_centroids(self._matrix(known, centroids.shape[1]), centroids)
            return known.select("uid", pl.Series("cluster", cluster), pl.Series("cosine", cosine))

        return pl.concat(context.each_part(rows, nearest)).sort("uid")

    def _matrix(self, rows: pl.DataFrame, width: int = 0) -> Vectors:
        found = vectors(rows[self.embedding].to_arrow(), width)
        if not norms(found).all():
            raise CuveeError("an embedding of length zero; the stage that wrote it broke its promise of unit norm")
        return found


def _evidence(found: CoreSet, cluster: Integers, kept: Mask) -> dict[str, Any]:
    """Of each part of the set the rows that are `kept` (n,): `easy` and `hard` of each cluster."""
    parts = {"rows": np.ones_like(kept), "easy": kept & found.near, "hard": kept & found.far}
    counts = {name: np.bincount(cluster[part], minlength=len(found.quotas)).tolist() for name, part in parts.items()}
    clusters = [dict(zip(counts, line, strict=True)) for line in zip(*counts.values(), strict=True)]
    return {"base": int((kept & found.base).sum()), "clusters": clusters}

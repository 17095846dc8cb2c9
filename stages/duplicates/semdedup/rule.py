"""The rule: clusters, orders, compares and cuts."""

from math import isqrt
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
import polars as pl
from pydantic import Field, model_validator

from schemas.columns import IMAGE_EMBEDDING
from schemas.errors import CuveeError
from stages.clusters import Places, fit_centroids, in_order, nearest_centroids
from stages.duplicates.semdedup.similarity import largest_earlier
from stages.fit import Fit
from stages.noise import uniform_noise
from stages.order import share_of
from stages.rule import Context, Rule, Verdict, drop_lines
from stages.vectors import Doubles, Vectors, norms

MOST_CLUSTERS = 50_000
HISTOGRAM = np.linspace(0, 1, 41)


class SemDeDup(Rule):
    """Drops rows whose image embedding is close to one before them in their cluster, as `semantic_duplicate`.

    Either `epsilon`: drop iff the largest cosine with an earlier row exceeds 1 - epsilon; or `keep`: drop the largest
    such cosines until ceil(keep x n) rows are left, ties by uid. `duplicate_of` is that earlier row, which may itself
    be dropped for a third one: chains are part of the published rule. Rows without an embedding stay. Beyond one
    machine the cluster is the partition key, with equal results.
    Learned: the centroids and, under `keep`, the last dropped row's (similarity, uid), the cut in that order of rows.
    """

    version: ClassVar[int] = 2

    kind: Literal["semdedup"] = "semdedup"
    epsilon: float | None = Field(None, gt=0, le=1)
    keep: float | None = Field(None, gt=0, le=1)
    clusters: int | None = Field(None, gt=0, le=MOST_CLUSTERS)
    """Default: the square root of the number of rows."""
    order: Literal["hard", "easy", "random"] = "hard"
    """Which rows of a cluster come first and so stay: far from the centroid, near to it, or by hash(seed, uid)."""

    @model_validator(mode="after")
    def _one_cut(self) -> "SemDeDup":
        if (self.epsilon is None) == (self.keep is None):
            raise ValueError(
                f"found epsilon={self.epsilon} and keep={self.keep}; name exactly one: epsilon cuts at a "
                f"similarity, keep leaves a fraction"
            )
        return self

    def columns(self) -> tuple[str, ...]:
        """The image embedding."""
        return (IMAGE_EMBEDDING.name,)

    def judge(self, rows: pl.LazyFrame, context: Context) -> Verdict:
        """Cluster all rows, or take them to the nearest pinned centroid; compare inside clusters, cut.

        Raises:
            CuveeError: embeddings of unequal length or of length zero, or `keep` needs more drops than there are rows
                with an earlier neighbour.
        """
        table = rows.select("uid", IMAGE_EMBEDDING.name).sort("uid").drop_nulls().collect()
        if table.is_empty():
            return Verdict(fit=context.fit)
        embeddings = _matrix(table[IMAGE_EMBEDDING.name])
        uids = table["uid"].to_list()
        centroids = self._centroids(embeddings, uids, context)
        groups = self._groups(embeddings, uids, centroids, context.seed)
        largest = np.full(len(uids), -np.inf)
        partner = np.full(len(uids), -1, np.int64)
        for group in groups:
            largest[group], place = largest_earlier(embeddings[group])
            partner[group[1:]] = group[place[1:]]
        lost = self._lost(largest, uids, context.fit)
        twins = pl.DataFrame({"uid": table["uid"].gather(lost), "duplicate_of": table["uid"].gather(partner[lost])})
        evidence = _evidence(largest, lost, [len(group) for group in groups])
        fit = context.fit or Fit({"centroids": centroids.astype(np.float32)}, {"cut": self._cut(largest, lost, uids)})
        return Verdict(drop_lines(twins, "semantic_duplicate").sort("uid"), evidence=evidence, fit=fit)

    def _centroids(self, embeddings: Vectors, uids: list[str], context: Context) -> Vectors:
        if context.fit is not None:
            return context.fit.arrays["centroids"].astype(np.float16)
        clusters = self.clusters or min(max(isqrt(len(uids)), 1), MOST_CLUSTERS)
        return fit_centroids(embeddings, uids, clusters, context.seed, self.kind)

    def _groups(self, embeddings: Vectors, uids: list[str], centroids: Vectors, seed: int) -> list[Places]:
        cluster, cosine = nearest_centroids(embeddings, centroids)
        keys = uniform_noise(uids, seed, "semdedup order") if self.order == "random" else None
        return in_order(cluster, cosine, keys, self.order == "hard")

    def _lost(self, largest: Doubles, uids: list[str], fit: Fit | None) -> Places:
        """Rows to drop, by their largest earlier cosine (-inf where there is none)."""
        if self.epsilon is not None:
            return np.flatnonzero(largest > 1 - self.epsilon)
        if fit is not None:
            return _beyond(largest, uids, fit.facts["cut"])
        assert self.keep is not None
        drops = len(largest) - share_of(self.keep, len(largest))
        candidates = int(np.isfinite(largest).sum())
        if drops > candidates:
            raise CuveeError(
                f"keep: {self.keep} of {len(largest)} rows means {drops} drops, but only {candidates} rows have an "
                f"earlier neighbour in their cluster; raise `keep` or lower `clusters`"
            )
        return np.sort(np.argsort(-largest, kind="stable")[:drops])

    def _cut(self, largest: Doubles, lost: Places, uids: list[str]) -> list[float | str] | None:
        """[similarity, uid] of the row that `keep` dropped last; None where it dropped none."""
        if self.keep is None or not len(lost):
            return None
        lowest = largest[lost].min()
        return [float(lowest), uids[int(lost[largest[lost] == lowest][-1])]]


def _beyond(largest: Doubles, uids: list[str], cut: list[Any] | None) -> Places:
    """Rows at or before a pinned cut: more similar, or as similar with a uid that is not greater."""
    if cut is None:
        return np.zeros(0, np.int64)
    before = np.array([uid <= cut[1] for uid in uids], np.bool_)
    return np.flatnonzero((largest > cut[0]) | ((largest == cut[0]) & before))


def _matrix(column: pl.Series) -> Vectors:
    """(n, d) of a list column without nulls."""
    lengths = column.list.len().unique().to_list()
    if len(lengths) != 1:
        raise CuveeError(f"embeddings of {sorted(lengths)} numbers in one pool; were two models mixed?")
    numbers = column.to_arrow().flatten().to_numpy(zero_copy_only=False)
    matrix: Vectors = numbers.astype(np.float16).reshape(len(column), -1)
    if not norms(matrix).all():
        raise CuveeError("an embedding of length zero; the stage that wrote it broke its promise of unit norm")
    return matrix


def _evidence(largest: Doubles, lost: Places, sizes: list[int]) -> dict[str, Any]:
    compared = largest[np.isfinite(largest)]
    counts: npt.NDArray[np.int64] = np.histogram(np.clip(compared, 0, 1), HISTOGRAM)[0]
    return {
        "clusters": len(sizes),
        "cluster_rows": {"smallest": min(sizes), "median": int(np.median(sizes)), "largest": max(sizes)},
        "lowest_dropped_similarity": float(largest[lost].min()) if len(lost) else None,
        "similarities": {"edges": HISTOGRAM.round(3).tolist(), "counts": counts.tolist()},
    }

"""The rule: clusters, orders, compares and cuts."""

from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
import polars as pl
from pydantic import Field, model_validator

from schemas.columns import IMAGE_EMBEDDING
from schemas.errors import CuveeError
from stages.duplicate_groups import group_evidence
from stages.duplicates.semdedup.greedy import Greedy
from stages.duplicates.semdedup.veto import Veto
from stages.fit import Fit
from stages.near_vectors.neighbours import MOST_CLUSTERS, Clustering, Compared, Neighbours
from stages.near_vectors.similarity import Places
from stages.noise import uniform_noise
from stages.order import share_of
from stages.rule import Context, Rule, Verdict, drop_lines
from stages.vectors import Doubles

HISTOGRAM = np.linspace(0, 1, 41)
SIMILARITY_DECIMALS = 12
"""A row's cosine with itself is 1 but for the last bit."""


class SemDeDup(Rule):
    """Drops rows whose image embedding is close to one before them in their cluster, as `semantic_duplicate`.

    Either `epsilon`: rows are close when their cosine exceeds 1 - epsilon; or `keep`: as close as it takes to leave
    ceil(keep x n) rows, ties by uid. Rows without an embedding stay; a row without the embedding of the `veto`, too.
    `method: published`: dropped is a row with a close one before it, which is named as `duplicate_of` (the closest of
    them) and may itself be dropped for a third one: chains are part of the published rule. `method: greedy`: dropped is
    a row with a close one before it that stays, the first of these.
    Beyond one machine the cluster is the partition key, with equal results.
    Learned: the centroids and, under `keep`, the last dropped row's (similarity, uid), the cut in that order of rows,
    for `greedy` beside the threshold of its pass.
    """

    version: ClassVar[int] = 3
    likeness: ClassVar[str] = "cosine of the image embeddings"

    kind: Literal["semdedup"] = "semdedup"
    epsilon: float | None = Field(None, gt=0, le=1)
    keep: float | None = Field(None, gt=0, le=1)
    clusters: int | None = Field(None, gt=0, le=MOST_CLUSTERS)
    """Default: the square root of the number of rows."""
    order: Literal["hard", "easy", "random"] = "hard"
    """Which rows go first and so stay: far from their centroid, near to it, or by hash(seed, uid)."""
    method: Literal["published", "greedy"] = "published"
    probe: Annotated[int, Field(ge=1, le=8)] = 1
    """In how many of its nearest clusters a row is compared; 1 is the published rule."""
    veto: Veto | None = None

    @model_validator(mode="after")
    def _one_cut(self) -> "SemDeDup":
        if (self.epsilon is None) == (self.keep is None):
            raise ValueError(
                f"found epsilon={self.epsilon} and keep={self.keep}; name exactly one: epsilon cuts at a "
                f"similarity, keep leaves a fraction"
            )
        return self

    def columns(self) -> tuple[str, ...]:
        """The image embedding, and the one that has a veto."""
        return (IMAGE_EMBEDDING.name, *([self.veto.column] if self.veto else []))

    def judge(self, rows: pl.LazyFrame, context: Context) -> Verdict:
        """Cluster all rows, or take them to the nearest pinned centroid; compare inside clusters, cut.

        Raises:
            RecipeError: the column of the `veto` holds no embeddings.
            CuveeError: embeddings of unequal length or of length zero, `keep` needs more drops than there are rows
                with an earlier neighbour, or more pairs are close than can be held.
        """
        if self.veto:
            self.veto.require_embedding(rows)
        compared = Compared(IMAGE_EMBEDDING.name, *((self.veto.column, self.veto.above) if self.veto else ()))
        clustering = Clustering(compared, self.clusters, self.probe)
        pinned = context.fit.arrays["centroids"].astype(np.float16) if context.fit else None
        found = clustering.neighbours(rows, context, pinned, collapse=self.method == "greedy")
        if found is None:
            return Verdict(fit=context.fit)
        near, centroids = found
        decide = self._published if self.method == "published" else self._greedy
        twins, cut, evidence = decide(near, self._order(near, context.seed), context.fit)
        sizes = np.unique(near.clusters[:, 0], return_counts=True)[1]
        evidence |= _sizes(sizes) | {"lowest_dropped_similarity": twins["similarity"].min()} | group_evidence(twins)
        fit = context.fit or Fit({"centroids": centroids.astype(np.float32)}, {"cut": cut})
        return Verdict(drop_lines(twins, "semantic_duplicate").sort("uid"), evidence=evidence, fit=fit)

    def _order(self, near: Neighbours, seed: int) -> Places:
        """Places in the order in which rows go before each other; ties by uid."""
        if self.order == "random":
            return np.argsort(uniform_noise(near.uids.to_list(), seed, "semdedup order"), kind="stable")
        return np.argsort(near.cosine if self.order == "hard" else -near.cosine, kind="stable")

    def _published(self, near: Neighbours, order: Places, fit: Fit | None) -> tuple[pl.DataFrame, Any, dict[str, Any]]:
        by_rank, before = near.largest(order)
        largest, partner = _per_place(order, by_rank), _per_place(order, np.append(order, -1)[before])
        lost, cut = self._lost(largest, near.uids, fit)
        return _twins(near.uids, lost, partner, largest), cut, _histogram(largest)

    def _lost(self, largest: Doubles, uids: pl.Series, fit: Fit | None) -> tuple[Places, list[Any] | None]:
        """Rows to drop by their largest earlier cosine (-inf where there is none), and the cut to remember."""
        if self.epsilon is not None:
            return np.flatnonzero(largest > 1 - self.epsilon), None
        candidates = np.flatnonzero(np.isfinite(largest))
        if fit is not None:
            return _before_cut(candidates, largest, uids, fit.facts["cut"]), None
        return self._most_similar(candidates, largest, uids)

    def _greedy(self, near: Neighbours, order: Places, fit: Fit | None) -> tuple[pl.DataFrame, Any, dict[str, Any]]:
        greedy = Greedy(near, order)
        cut: list[Any] | None = None
        if self.epsilon is not None or fit is not None:
            threshold = 1 - self.epsilon if self.epsilon is not None else fit.facts["cut"][0] if fit else 0.0
            solved = greedy.dropped(greedy.pairs(threshold))
        else:
            wanted = len(order) - share_of(self.keep or 1, len(order))
            found = greedy.solved(wanted)
            if found is None:
                raise self._too_few(wanted, len(order), "fewer have a kept neighbour before them")
            solved, threshold = found
        similarity = _per_place(order, solved.similarity)
        partner = _per_place(order, np.append(order, -1)[solved.partner])
        lost = np.flatnonzero(partner >= 0)
        if self.keep is not None and fit is not None:
            lost = _before_cut(lost, similarity, near.uids, fit.facts["cut"][1])
        elif self.keep is not None:
            lost, border = self._most_similar(lost, similarity, near.uids)
            cut = [threshold, border]
        return _twins(near.uids, lost, partner, similarity), cut, {"threshold": threshold}

    def _most_similar(
        self, candidates: Places, similarity: Doubles, uids: pl.Series
    ) -> tuple[Places, list[Any] | None]:
        """As many of the candidates as `keep` drops, and [similarity, uid] of the last; None where it drops none."""
        n = len(similarity)
        drops = n - share_of(self.keep or 1, n)
        if drops > len(candidates):
            raise self._too_few(drops, n, f"only {len(candidates)} rows have an earlier neighbour in their cluster")
        chosen = candidates[np.argsort(-similarity[candidates], kind="stable")[:drops]]
        border = [float(similarity[chosen[-1]]), str(uids[int(chosen[-1])])] if drops else None
        return np.sort(chosen), border

    def _too_few(self, drops: int, n: int, found: str) -> CuveeError:
        return CuveeError(
            f"keep: {self.keep} of {n} rows means {drops} drops, but {found}; raise `keep` or lower `clusters`"
        )


def _per_place(order: Places, by_rank: npt.NDArray[Any]) -> Any:
    found = np.empty_like(by_rank)
    found[order] = by_rank
    return found


def _before_cut(candidates: Places, similarity: Doubles, uids: pl.Series, cut: list[Any] | None) -> Places:
    """Candidates at or before a pinned cut: more similar, or as similar with a uid that is not greater."""
    if cut is None:
        return candidates[:0]
    own, before = similarity[candidates], (uids.gather(candidates) <= cut[1]).to_numpy()
    chosen: Places = candidates[(own > cut[0]) | ((own == cut[0]) & before)]
    return chosen


def _twins(uids: pl.Series, lost: Places, partner: Places, similarity: Doubles) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "uid": uids.gather(lost),
            "duplicate_of": uids.gather(partner[lost]),
            "similarity": similarity[lost].round(SIMILARITY_DECIMALS),
        }
    )


def _histogram(largest: Doubles) -> dict[str, Any]:
    compared = largest[np.isfinite(largest)]
    counts: npt.NDArray[np.int64] = np.histogram(np.clip(compared, 0, 1), HISTOGRAM)[0]
    return {"largest_similarities": {"edges": HISTOGRAM.round(3).tolist(), "counts": counts.tolist()}}


def _sizes(sizes: npt.NDArray[np.int64]) -> dict[str, Any]:
    rows = {"smallest": int(sizes.min()), "median": int(np.median(sizes)), "largest": int(sizes.max())}
    return {"clusters": len(sizes), "cluster_rows": rows}

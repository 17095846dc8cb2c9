"""The rule `got_d`: learns potentials from samples and weighs every row by them, in rounds if asked to."""

from dataclasses import replace
from typing import Any, ClassVar, Literal

import numpy as np
import polars as pl
from pydantic import Field

from schemas.columns import IMAGE_EMBEDDING
from stages.fit import Fit
from stages.rule import SCORES_SCHEMA, Context, present_and_missing
from stages.selector import Ranking, Selector
from stages.transport.evidence import distances_to_target, histogram
from stages.transport.features import EmbeddingColumns, column_names
from stages.transport.gradients import Proxy, Round, learned_round
from stages.transport.sample import rows_named, sample
from stages.transport.space import Space, each_slice, known_space, learned_space, pool_sample, target_sample
from stages.vectors import Vectors

ROUND_STEP = 16.0
"""Added to the score for each round that a row is chosen earlier; gradients lie within +-8."""


class GotD(Selector):
    """Ranks rows by how much a little mass moved to them would lower the transport cost from the pool to the target.

    The score is -g, in units of the cost: squared Euclidean distances of unit embeddings, 2 - 2 cos, in [0, 4]. Rows
    without an embedding are dropped as `<column>_missing`. A gradient only holds for small moves: all at once takes too
    much of what the pool lacks most, and can end farther from a target of several kinds than chance does. So each of R
    `rounds` takes 1/R of the budget, and round r (from 0) learns from a mixture of the proxy with, at `share` * r / R,
    what the rounds before have chosen. The score says the round first. `rounds: 1` is the published rule.
    Learned: target atoms, their potentials in each round, levels, borders, whitening. Pinned, a row's score never
    changes. Beyond one machine the parts are weighed on the cluster, to the same bits.
    """

    version: ClassVar[int] = 1

    kind: Literal["got_d"] = "got_d"
    target: Literal["target"] = "target"
    column: EmbeddingColumns = IMAGE_EMBEDDING.name
    """`image_embedding`, `text_embedding`, or both."""
    proxy: str | None = None
    """A reference that stands for what the model was trained on before; default: the pool."""
    atoms: int = Field(1000, ge=1, le=2000)
    """Rows of the target, and of a batch of the proxy, at most: those with the smallest hash(seed, uid)."""
    batches: int = Field(4, ge=1, le=64)
    rounds: int = Field(10, ge=1, le=100)
    share: float = Field(0.5, ge=0, lt=1)
    """Lambda: of what the selection is in all that a model learns from."""
    whiten: float | None = Field(None, gt=0, le=1)
    """Shrinkage of the proxy's covariance that distances are whitened by; default: they are not."""
    softness: float = Field(0.0, ge=0, le=4, allow_inf_nan=False)
    """Of the minimum in the c-transform, in units of the cost."""

    def reads(self) -> tuple[str, ...]:
        """The embedding columns."""
        return column_names(self.column)

    def needs_target(self) -> bool:
        """Always."""
        return True

    def needs_references(self) -> tuple[str, ...]:
        """The proxy, if one is named."""
        return () if self.proxy is None else (self.proxy,)

    def rank(self, rows: pl.LazyFrame, context: Context) -> Ranking:
        """Learn, or take what is pinned; weigh every row once a round.

        Raises:
            CuveeError: no row with an embedding in pool, proxy or target, embeddings of unequal width, or a budget
                above what there is.
        """
        eligible, missing = present_and_missing(rows, context, self.reads())
        budget = self.affordable(rows, eligible, missing, context)
        space, atoms, proxy = self._start(rows, context)
        chosen, rounds = pl.DataFrame(schema=SCORES_SCHEMA), list[Round]()
        for number in range(self.rounds):
            step = self._round(number, proxy, atoms, self._points(rows, context, space, chosen), context.fit)
            found = self._weighed(rows, context, space, atoms, step)
            others = found.join(chosen, on="uid", how="anti")
            if number < self.rounds - 1:
                step = step if context.fit else replace(step, border=self._border(budget, len(chosen), others, number))
                others = others.filter(pl.col("gradient") <= step.border)
            rounds.append(step)
            score = ROUND_STEP * (self.rounds - 1 - number) - pl.col("gradient")
            chosen = pl.concat([chosen, others.select("uid", score.alias("score"))])
        kept = chosen["uid"].filter(pl.Series(self.chosen(rows, chosen, context)))
        evidence = {
            "columns": list(self.reads()),
            "cost": "squared Euclidean of unit vectors" + (", whitened" if space.whitening else ""),
            "transport": distances_to_target(rows, context, space, atoms, kept, chosen["uid"]),
            "gradients": histogram(found["gradient"].to_numpy()),
        }
        return Ranking(chosen, missing, evidence, context.fit or _fit(atoms, rounds, space))

    def _start(self, rows: pl.LazyFrame, context: Context) -> tuple[Space, Vectors, Vectors]:
        """The space, the target's atoms, and the proxy's points (none under a pinned fit)."""
        columns = self.reads()
        if context.fit is not None:
            atoms = context.fit.arrays["atoms"]
            return known_space(columns, atoms.shape[1], context.fit.arrays), atoms, atoms[:0]
        target = target_sample(context, columns, self.atoms, self.kind)
        stands = pool_sample(rows, context, columns, self.atoms * self.batches, self.kind, self.proxy)
        space = learned_space(columns, target, stands, self.whiten)
        return space, space(target, "the target"), space(stands, self.proxy or "the pool")

    def _round(self, number: int, proxy: Vectors, atoms: Vectors, chosen: Vectors | None, fit: Fit | None) -> Round:
        if fit is not None:
            facts = fit.arrays["levels"][number].tolist()
            return Round(fit.arrays["potentials"][number], facts[0], int(facts[1]), facts[2])
        share = self.share * number / self.rounds if chosen is not None else 0.0
        joined = 1 if self.whiten is not None else len(self.reads())
        return learned_round(Proxy(proxy, chosen, share), atoms, self.batches, joined, self.softness)

    def _points(self, rows: pl.LazyFrame, context: Context, space: Space, chosen: pl.DataFrame) -> Vectors | None:
        """Of some rows that are chosen already; None where none are, or where nothing is learned."""
        if chosen.is_empty() or context.fit is not None:
            return None
        some = sample(chosen, self.atoms, context.seed, f"{self.kind} chosen")
        return space(rows_named(rows, context, self.reads(), some["uid"]), "the pool")

    def _weighed(self, rows: pl.LazyFrame, context: Context, space: Space, atoms: Vectors, step: Round) -> pl.DataFrame:
        """(uid, gradient) of every row."""
        joined, softness = space.joined, self.softness

        def weigh(points: Vectors) -> pl.DataFrame:
            return pl.DataFrame({"gradient": step.gradients(points, atoms, joined, softness)})

        return each_slice(rows, context, space, weigh)

    def _border(self, budget: int, taken: int, others: pl.DataFrame, number: int) -> float:
        """The gradient of the last row that this round's share of the budget reaches, `taken` of it being spent."""
        quota = max((number + 1) * budget // self.rounds - taken, 0)
        return float(np.partition(others["gradient"].to_numpy(), quota - 1)[quota - 1]) if quota else -np.inf


def _fit(atoms: Vectors, rounds: list[Round], space: Space) -> Fit:
    arrays: dict[str, Any] = {
        "atoms": atoms,
        "potentials": np.stack([step.potentials for step in rounds]),
        "levels": np.array([[step.mean, float(step.rows), step.border] for step in rounds]),
        **space.arrays(),
    }
    return Fit(arrays, {"columns": list(space.columns)})

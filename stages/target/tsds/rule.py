"""The rule `tsds`: finds the rows near to the target's examples, spreads probability over them, draws."""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import polars as pl
from pydantic import Field

from schemas.columns import IMAGE_EMBEDDING
from stages.fit import Fit
from stages.noise import uniform_noise
from stages.rule import Context, present_and_missing
from stages.selector import Ranking, Selector
from stages.target.tsds.assignment import Plan, solve
from stages.target.tsds.density import MOST_NEIGHBOURS, densities
from stages.target.tsds.draw import chances, order, weights
from stages.target.tsds.neighbours import radii
from stages.transport.distances import squared_distances
from stages.transport.evidence import distances_to_target, histogram
from stages.transport.features import EmbeddingColumns, column_names
from stages.transport.sample import rows_named
from stages.transport.space import Space, each_slice, known_space, learned_space, pool_sample, target_sample
from stages.vectors import Doubles, Vectors

WITHOUT_PROBABILITY = -1000.0
"""Less than any score of a row that can be drawn."""
WHITENED_BY = 4096
"""Rows of the pool."""


@dataclass(frozen=True)
class _Learned:
    """What a fit holds."""

    space: Space
    examples: Vectors
    radii: Doubles
    plan: Plan | None = None


class Tsds(Selector):
    """Draws rows near to the target's examples, with probabilities that rows close to each other share.

    The score is the order of a draw without repeats, by noise of (seed, uid), in which a row's chance is the budget
    times its probability; 1000 where that is 1 or more. Rows that no example sends mass to are ranked below all others,
    by -1000 - distance to the nearest example. Rows without an embedding are dropped as
    `<column>_missing`. Distances are Euclidean between unit vectors, in [0, 2].
    Learned: the examples, how far each looks, and the plan's borders; whitening. Pinned, densities are those of the
    rows there are now, so a near-duplicate that comes later takes its share from the first. Beyond one machine parts
    look for neighbours on the cluster; the candidates, at most `candidates`, meet on one machine.
    """

    version: ClassVar[int] = 2

    kind: Literal["tsds"] = "tsds"
    target: Literal["target"] = "target"
    column: EmbeddingColumns = IMAGE_EMBEDDING.name
    """`image_embedding`, `text_embedding`, or both."""
    alpha: float = Field(0.5, ge=0, le=1)
    """1: nearness alone, 0: diversity alone."""
    scale: float = Field(5.0, gt=0, allow_inf_nan=False)
    """C, what distances are divided by."""
    sigma: float = Field(0.75, ge=0, allow_inf_nan=False)
    """Rows nearer than this share; 0: none do."""
    examples: int = Field(128, ge=1, le=2000)
    """Rows of the target at most: those with the smallest hash(seed, uid)."""
    neighbours: int = Field(5000, ge=1)
    """Nearest rows that an example may use; fewer where all together would be more than `candidates`."""
    candidates: int = Field(50_000, ge=1)
    density_neighbours: int = Field(1000, ge=1, le=MOST_NEIGHBOURS)
    """Nearest candidates that count for a density."""
    weigh: bool = False
    """Kept rows weigh what stands for the probabilities: more where p times the budget is more than once."""
    whiten: float | None = Field(None, gt=0, le=1)
    """Shrinkage of the pool's covariance that distances are whitened by; default: they are not."""

    def reads(self) -> tuple[str, ...]:
        """The embedding columns."""
        return column_names(self.column)

    def needs_target(self) -> bool:
        """Always."""
        return True

    def rank(self, rows: pl.LazyFrame, context: Context) -> Ranking:
        """Find the candidates, plan or take the pinned plan, draw.

        Raises:
            CuveeError: no row with an embedding in pool or target, embeddings of unequal width, or a budget above what
                there is.
        """
        eligible, missing = present_and_missing(rows, context, self.reads())
        budget = self.affordable(rows, eligible, missing, context)
        learned = self._learned(rows, context)
        space, examples = learned.space, learned.examples
        every = each_slice(rows, context, space, _looked_at(learned))
        near = every.filter("near").select("uid")
        points = space(rows_named(rows, context, self.reads(), near["uid"]), "the pool")
        squared = squared_distances(points, examples, space.joined)
        density = densities(points, self.sigma, self.density_neighbours, space.joined)
        plan = learned.plan or solve(squared, learned.radii, density, self.alpha, self.scale)
        near = near.with_columns(pl.Series("p", plan.probabilities(squared, density)))
        ranked = _scored(every.join(near, on="uid", how="left"), budget, context.seed)
        kept = ranked["uid"].filter(pl.Series(self.chosen(rows, ranked, context)))
        evidence = {
            "columns": list(self.reads()),
            "neighbours_exhausted": plan.exhausted,
            "transport": distances_to_target(rows, context, space, examples, kept, ranked["uid"]),
            **_counts(near["p"].to_numpy(), density),
        }
        drawn = weights(ranked.filter(pl.col("uid").is_in(kept.implode()))) if self.weigh else None
        fit = context.fit or _fit(learned, plan)
        return Ranking(ranked.select("uid", "score", "importance"), missing, evidence, fit, drawn)

    def _learned(self, rows: pl.LazyFrame, context: Context) -> _Learned:
        columns, fit = self.reads(), context.fit
        if fit is not None:
            examples, lines = fit.arrays["examples"], fit.arrays["plan"]
            space = known_space(columns, examples.shape[1], fit.arrays)
            return _Learned(
                space, examples, lines[0], Plan(lines[1], lines[2], fit.facts["inner"], fit.facts["exhausted"])
            )
        target = target_sample(context, columns, self.examples, self.kind)
        stands = pool_sample(rows, context, columns, WHITENED_BY if self.whiten else 1, self.kind)
        space = learned_space(columns, target, stands, self.whiten)
        examples = space(target, "the target")
        return _Learned(space, examples, radii(rows, context, space, examples, self.neighbours, self.candidates))


def _looked_at(learned: _Learned) -> Any:
    """Of points: the distance to the nearest example, and whether an example looks that far."""
    examples, reach, joined = learned.examples, learned.radii, learned.space.joined

    def look(points: Vectors) -> pl.DataFrame:
        squared = squared_distances(points, examples, joined)
        nearest, near = np.sqrt(squared.min(axis=1)), (squared <= reach).any(axis=1)
        return pl.DataFrame({"nearest": nearest, "near": near})

    return look


def _counts(chance: Doubles, density: Doubles) -> dict[str, Any]:
    """How many rows can be drawn, and how unevenly: exp(entropy) rows of equal chance would be as many."""
    drawn = chance > 0
    some = chance[drawn] / chance[drawn].sum()
    return {
        "candidates": len(chance),
        "with_probability": len(some),
        "effective": float(np.exp(-(some * np.log(some)).sum())) if len(some) else 0.0,
        "density": {"mean": float(density[drawn].mean()), "largest": float(density[drawn].max())}
        if len(some)
        else None,
        "log_probabilities": histogram(np.log(some)),
    }


def _scored(rows: pl.DataFrame, budget: int, seed: int) -> pl.DataFrame:
    """(uid, score, importance, p, chance) for a budget of rows."""
    p = rows["p"].fill_null(0.0).to_numpy()
    chance = chances(p, budget)
    noise = uniform_noise(rows["uid"].to_list(), seed, "tsds")
    importance = WITHOUT_PROBABILITY - rows["nearest"].to_numpy()
    score, drawn = importance.copy(), chance > 0
    score[drawn] = order(chance[drawn], noise[drawn])
    importance[drawn] = order(chance[drawn], np.full(int(drawn.sum()), 0.5))
    found = {"score": score, "importance": importance, "p": p, "chance": chance}
    return rows.select("uid", *(pl.Series(name, values) for name, values in found.items()))


def _fit(learned: _Learned, plan: Plan) -> Fit:
    arrays: dict[str, Any] = {"examples": learned.examples, "plan": np.stack([learned.radii, plan.borders, plan.edges])}
    facts = {"columns": list(learned.space.columns), "inner": plan.inner, "exhausted": plan.exhausted}
    return Fit({**arrays, **learned.space.arrays()}, facts)

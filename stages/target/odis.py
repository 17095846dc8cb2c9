"""ODiS (He et al., arXiv:2510.18909): the top of each of several uncorrelated axes, not the top of one sum of scores.

Scores of one sample are correlated, so the top of any of them, or of their sum, is the top of what they share, again
and again. The standardised score columns are rotated onto their principal axes; each axis gives its highest rows.

Changed: the authors score a sample by a large model and train a RoBERTa per axis to score the rest; here all rows have
all scores, and an axis is read off them. An axis has no direction of its own: it points to where its heaviest column
rises (the first named of equally heavy ones), so name columns of which more is better.
"""

from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
import polars as pl
from pydantic import AfterValidator, Field, model_validator

from schemas.errors import CuveeError
from stages.fit import Fit
from stages.order import numeric_name, require_numeric
from stages.rule import Context, gathered, whole_and_missing
from stages.selector import Ranking, Selector, ranking_of_one
from stages.turns import in_turn, shares_of_lists

Doubles = npt.NDArray[np.float64]

LEAST_VARIANCE = 1e-9
"""Of an axis, where a column has 1: below it the axis is rounding, one column being a sum of others."""
EQUALLY_HEAVY = 6
"""Decimals to which two loadings count as equal."""


def correlations(columns: Doubles) -> Doubles:
    """(d, d) of standardised (d, n) columns in a fixed order of rows: plain sums, in which no BLAS has a say."""
    d, n = columns.shape
    found = np.eye(d)
    for one in range(d):
        for other in range(one):
            found[one, other] = found[other, one] = (columns[one] * columns[other]).sum() / n
    return found


def principal_axes(correlation: Doubles) -> tuple[Doubles, Doubles]:
    """Variances (a,), largest first, and loadings (a, d) of unit norm, each row pointing where its heaviest rises."""
    variances, vectors = np.linalg.eigh(correlation)
    there = np.flatnonzero(variances > LEAST_VARIANCE)[::-1]
    axes = vectors.T[there]
    heaviest = np.round(np.abs(axes), EQUALLY_HEAVY).argmax(axis=1)
    signs = np.sign(np.take_along_axis(axes, heaviest[:, None], axis=1))
    return variances[there], np.ascontiguousarray(axes * signs)


class Odis(Selector):
    """The m highest rows of each principal axis of `scores`, with m as large as the budget buys.

    A row that is among the m of two axes counts once; score is the best place, negative. Rows that lack a score are
    dropped as `<column>_missing`. Learned: means, deviations and axes. Beyond one machine the parts hand in scores.
    """

    kind: Literal["odis"] = "odis"
    scores: Annotated[tuple[Annotated[str, AfterValidator(numeric_name)], ...], Field(min_length=2)]
    axes: int | None = Field(None, ge=1)
    """Only those of the largest variance; default: all that have any."""

    @model_validator(mode="after")
    def _once(self) -> "Odis":
        if len(set(self.scores)) < len(self.scores):
            raise ValueError(f"found scores {list(self.scores)}; name each once")
        return self

    def reads(self) -> tuple[str, ...]:
        """The score columns."""
        return self.scores

    def rank(self, rows: pl.LazyFrame, context: Context) -> Ranking:
        """Standardise, rotate, sort each axis.

        Raises:
            RecipeError: a column holds no numbers.
            CuveeError: a column that is the same in all rows has nothing to say.
        """
        for column in self.scores:
            require_numeric(rows, column)
        whole, missing = whole_and_missing(gathered(rows, context, *self.scores), self.scores)
        self.affordable(rows, whole, missing, context)
        if len(whole) == 1:
            return ranking_of_one(whole, missing, context)
        values = np.stack([whole[column].cast(pl.Float64).to_numpy() for column in self.scores])
        fit = context.fit or self._learn(values)
        standard = _standardised(values, fit.arrays["mean"], fit.arrays["deviation"])
        axes = {f"axis {number}": _along(axis, standard) for number, axis in enumerate(fit.arrays["axes"], 1)}
        ranked = in_turn(whole["uid"], axes, context.seed, self.kind)
        return Ranking(ranked, missing, {"axes": self._axes(fit)}, fit)

    def describe(self, kept: pl.DataFrame) -> dict[str, Any]:
        """Per axis its rows, and how many rows several axes name."""
        found = shares_of_lists(kept, [name for name in kept.columns if name.startswith("axis ")])
        return {"rows_of_axis": found["rows"], "rows_of_several_axes": found["in_several"]}

    def _learn(self, values: Doubles) -> Fit:
        mean = values.mean(axis=1)
        deviation = np.sqrt(((values - mean[:, None]) ** 2).sum(axis=1) / values.shape[1])
        same = np.flatnonzero((values == values[:, :1]).all(axis=1))  # a deviation may be rounding
        if len(same):
            flat = self.scores[int(same[0])]
            raise CuveeError(
                f"column {flat!r} is the same in all {values.shape[1]} rows that have every score, so it ranks "
                f"nothing; leave it out of `scores` or loosen the rules before it"
            )
        variances, axes = principal_axes(correlations(_standardised(values, mean, deviation)))
        return Fit({"mean": mean, "deviation": deviation, "variance": variances, "axes": axes[: self.axes]})

    def _axes(self, fit: Fit) -> dict[str, Any]:
        shares = fit.arrays["variance"] / fit.arrays["variance"].sum()
        return {
            f"axis {number}": {"variance": float(share), **dict(zip(self.scores, axis.tolist(), strict=True))}
            for number, (share, axis) in enumerate(zip(shares, fit.arrays["axes"], strict=False), 1)
        }


def _standardised(values: Doubles, mean: Doubles, deviation: Doubles) -> Doubles:
    scaled: Doubles = (values - mean[:, None]) / deviation[:, None]
    return scaled


def _along(axis: Doubles, standard: Doubles) -> Doubles:
    """(n,) projections, added up column by column: the order of additions is fixed."""
    total = np.zeros(standard.shape[1])
    for weight, column in zip(axis, standard, strict=True):
        total += weight * column
    return total

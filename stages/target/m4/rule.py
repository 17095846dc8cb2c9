"""The selector: reads attributes, solves for the share of each pattern that is kept, counts it out."""

from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import polars as pl
from pydantic import Field, model_validator

from schemas.errors import CuveeError
from stages.fit import Fit
from stages.noise import uniform_noise
from stages.quotas import amounts, places_within, quotas
from stages.rule import Context, gathered, whole_and_missing
from stages.selector import Ranking, Selector, ranking_of_one
from stages.target.m4.attributes import (
    MOST_ATTRIBUTES,
    Attribute,
    Integers,
    Patterns,
    Sensitive,
    biases,
    patterns,
)
from stages.target.m4.program import Doubles, Moments, moments, most_rows, solve, weights
from stages.target.m4.rounding import balanced

NEARLY = 1e-9
"""Of the rows: how far a linear program may be off."""


class M4(Selector):
    """Keeps of every pattern of attributes the share that bounds both biases and is nearest to the same for all.

    The bounds hold for the shares that are solved for; whole rows are off by less than a row per pattern, such that the
    biases hardly change, and with `representation` above 0 the association bias by a term of second order. Evidence is
    of the rows that are kept: both biases before and after, and with q the share that is kept of a row's pattern the
    effective sample size (sum q)^2 / sum q^2 that q would have as weights. In a pattern the rows with the smallest
    hash(seed, uid) are kept; score is 1 - place / quota, so a budget of tokens thins all patterns alike. Rows that lack
    a column are dropped as `<column>_missing`. Learned: one multiplier per moment, which weighs patterns that were not
    there as well; under a pin the budget is shared out by those weights. Beyond one machine the parts hand in the
    columns.
    """

    version: ClassVar[int] = 3
    kind: Literal["m4"] = "m4"
    sensitive: Annotated[tuple[Sensitive, ...], Field(min_length=1)]
    """Each with the `share` it is to have."""
    labels: tuple[Attribute, ...] = ()
    """What the sensitive ones are not to go with."""
    representation: float = Field(0.0, ge=0, le=1)
    """Bound of |E s - share|."""
    association: float = Field(0.005, ge=0, le=1)
    """Bound of |E[y | s = 1] - E[y | s = 0]|; the default leaves whole rows room to stay below 0.01."""

    @model_validator(mode="after")
    def _told_apart(self) -> "M4":
        names = [attribute.name for attribute in self._attributes()]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"attribute {twice[0]!r} is named twice; name it once")
        if len(names) > MOST_ATTRIBUTES:
            raise ValueError(f"found {len(names)} attributes; at most {MOST_ATTRIBUTES} make a pattern")
        return self

    def reads(self) -> tuple[str, ...]:
        """The columns of the attributes."""
        return tuple(dict.fromkeys(attribute.column for attribute in self._attributes()))

    def rank(self, rows: pl.LazyFrame, context: Context) -> Ranking:
        """Count patterns, solve, share the budget out.

        Raises:
            RecipeError: a column cannot be compared with what an attribute names.
            CuveeError: the bounds leave fewer rows than the budget, or an attribute is true of all rows or of none.
        """
        tests = [attribute.holds(rows) for attribute in self._attributes()]
        table, missing = whole_and_missing(gathered(rows, context, *self.reads()), self.reads())
        wanted = self.affordable(rows, table.select("uid"), missing, context)
        if len(table) == 1:
            return ranking_of_one(table, missing, context)
        found, of_row = patterns(table.select(tests).to_numpy().reshape(len(table), -1), len(self.sensitive))
        fit = context.fit or self._learn(found, wanted)
        bounded = self._moments(found, fit)
        share = weights(fit.arrays["multipliers"], bounded, fit.facts["eta"])
        given = _counted(share, found, wanted, bounded)
        place = places_within(of_row, uniform_noise(table["uid"].to_list(), context.seed, self.kind))
        ranked = table.select("uid", pl.Series("score", _score(place, given[of_row])))
        kept = np.bincount(of_row[self.chosen(rows, ranked, context)], minlength=len(given))
        return Ranking(ranked, missing, self._evidence(found, fit.arrays["shares"], kept), fit)

    def _attributes(self) -> tuple[Attribute, ...]:
        return (*self.sensitive, *self.labels)

    def _learn(self, found: Patterns, wanted: int) -> Fit:
        n = int(found.rows.sum())
        for attribute, true in zip(self.sensitive, (found.rows @ found.sensitive).tolist(), strict=True):
            if true in (0, n):
                raise CuveeError(
                    f"{attribute.name!r} is true of {true} of {n} rows, so no choice of rows can give it a share; "
                    f"leave it out of `sensitive` or loosen the rules before it"
                )
        natural = found.rows @ found.sensitive / n
        asked = [attribute.share for attribute in self.sensitive]
        shares = [own if share is None else share for share, own in zip(asked, natural.tolist(), strict=True)]
        known = {"shares": np.array(shares), "means": found.rows @ found.labels / n}
        bounded = self._moments(found, Fit(known))
        rows = found.rows.astype(np.float64)
        most = most_rows(rows, bounded)
        if wanted > most + NEARLY * n:
            raise CuveeError(
                f"asked for {wanted} of {n} rows, and these shares and bounds leave at most {int(most + NEARLY * n)}; "
                f"lower the budget, or raise `representation` or `association`"
            )
        return Fit({**known, "multipliers": solve(rows, bounded, wanted / n)}, {"eta": wanted / n})

    def _moments(self, found: Patterns, fit: Fit) -> Moments:
        s, y = found.sensitive.astype(np.float64), found.labels.astype(np.float64)
        return moments(s, y, fit.arrays["shares"], fit.arrays["means"], (self.representation, self.association))

    def _evidence(self, found: Patterns, shares: Doubles, kept: Integers) -> dict[str, Any]:
        share = kept / found.rows
        return {
            "patterns": len(kept),
            "shares": {
                attribute.name: {"asked": asked, "before": before, "after": after}
                for attribute, asked, before, after in zip(
                    self.sensitive, shares.tolist(), *(_means(found, rows) for rows in (found.rows, kept)), strict=True
                )
            },
            "bias": {
                name: dict(zip(("representation", "association"), biases(rows, found, shares), strict=True))
                for name, rows in (("before", found.rows), ("after", kept))
            },
            "effective_rows": float(kept.sum() ** 2 / (kept @ share)),
            "kept_of_a_pattern": {"least": float(share.min()), "most": float(share.max())},
        }


def _counted(share: Doubles, found: Patterns, wanted: int, bounded: Moments) -> Integers:
    """(g,) whole rows of each pattern, `wanted` in all."""
    there = int(found.rows[share > 0].sum())
    if wanted > there:
        raise CuveeError(
            f"asked for {wanted} rows, and the pinned weights are above 0 for {there}; lower the budget, or run once "
            f"without `fits:` to fit anew, then pin that run"
        )
    mass = share * found.rows
    counts = quotas(mass, found.rows, wanted)
    return balanced(counts, amounts(mass, found.rows, wanted), bounded.values / bounded.scale[:, None])


def _score(place: Integers, quota: Integers) -> Doubles:
    """1 - place / quota, above 0 for the quota's rows; below all others where a pattern gives none."""
    score: Doubles = np.where(quota > 0, 1 - place / np.maximum(quota, 1), -float(len(place)))
    return score


def _means(found: Patterns, rows: Integers) -> list[float]:
    means: list[float] = (rows @ found.sensitive / max(int(rows.sum()), 1)).tolist()
    return means

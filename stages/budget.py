"""How much a selector keeps: one meaning of `samples`, `fraction` and `tokens` for all of them.

Of n eligible rows, ranked by score, the highest first:

- `samples: k` keeps exactly k; `fraction: f` keeps exactly ceil(f x n), with f taken as the decimal it is written as.
- `tokens: t` takes rows in order until the next one would bring the sum of their captions' tokens above t, and ends
  there: a short caption further down does not slip in. A token is what `tokens.py` says, in every script.
- Equal scores are ordered by hash(seed, uid): a border that cuts through them is no favour to anybody.
- Rows that cannot be ranked are not eligible: they are dropped for their own reason before n is counted.
- k = n keeps all, but of `m4`, whose bounds may leave fewer of n > 1: it refuses with how many. A single eligible row
  is kept by every selector, for there is nothing to choose and nothing to learn.
- More than there is (k > n, or t above the tokens of all n) is refused, whatever a selector may learn, and so is every
  budget of no row at all (n = 0, a fraction as well): nothing would be left. A refusal says how many rows are
  eligible, how many are not, and why. A budget of tokens that does not pay for the first row is refused too.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
from pydantic import BaseModel, ConfigDict, Field, model_validator

from schemas.columns import CAPTION
from schemas.errors import CuveeError
from stages.noise import uniform_noise
from stages.order import share_of
from stages.tokens import token_counts

TOKENS = (
    pl.col(CAPTION.name)
    .fill_null("")
    .map_batches(token_counts, return_dtype=pl.Int64, is_elementwise=True)
    .alias("tokens")
)
"""Tokens of a row's caption."""

Mask = npt.NDArray[np.bool_]

NONE_LEFT = "nothing would be kept: loosen the rules before it, or see why these rows lack what it ranks by"


class Budget(BaseModel):
    """Exactly one of three ways to say how much."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    samples: int | None = Field(None, gt=0, description="rows")
    fraction: float | None = Field(None, gt=0, le=1, description="of the eligible rows")
    tokens: int | None = Field(None, gt=0, description="of the captions of all kept rows together")

    @model_validator(mode="after")
    def _one_budget(self) -> "Budget":
        named = [name for name in Budget.model_fields if getattr(self, name) is not None]
        if len(named) != 1:
            raise ValueError(f"found {named or 'none'} of `samples`, `fraction`, `tokens`; name exactly one")
        return self

    def rows(self, eligible: int, tokens: int = 0, others: pl.DataFrame | None = None) -> int:
        """How many of the eligible rows it buys: exact, or for `tokens` as many as rows of mean length would be, >= 1.

        Args:
            eligible: n.
            tokens: of all n rows together; needed for a budget of tokens alone.
            others: verdict lines of the rows that are not eligible, for the refusal; None where that is not known yet.

        Raises:
            CuveeError: more than there is, with both numbers, or no eligible row.
        """
        (name, wanted), *_ = self.facts().items()
        if not eligible or wanted > {"samples": eligible, "fraction": 1, "tokens": tokens}[name]:
            asked = f"a fraction of {wanted}" if name == "fraction" else f"{wanted} {name}"
            found = f"{tokens} tokens in {eligible}" if name == "tokens" else f"{eligible}"
            advice = f"lower `{name}` or loosen the rules before it" if eligible else NONE_LEFT
            raise CuveeError(f"asked for {asked}, and there are {found} eligible rows{_reasons(others)}; {advice}")
        if self.fraction is not None:
            return share_of(self.fraction, eligible)
        return self.samples or max(1, wanted * eligible // tokens)

    def take(self, ranked: pl.DataFrame, seed: int, purpose: str, others: pl.DataFrame | None = None) -> Mask:
        """(n,) which rows of `ranked` (uid, score, and tokens for a budget of tokens) are kept; any order of rows.

        Args:
            ranked: the eligible rows.
            seed: of the recipe.
            purpose: whose ties these are, so that two selectors do not break them alike.
            others: see `rows`.

        Raises:
            CuveeError: more than there is, nothing, or less than the first row costs, with both numbers.
        """
        tied = uniform_noise(ranked["uid"].to_list(), seed, f"ties of {purpose}")
        order = np.lexsort((tied, -ranked["score"].to_numpy()))
        chosen = np.zeros(len(ranked), np.bool_)
        if self.tokens is None:
            chosen[order[: self.rows(len(ranked), others=others)]] = True
            return chosen
        sums = np.cumsum(ranked["tokens"].to_numpy()[order])
        self.rows(len(ranked), int(sums[-1]) if len(sums) else 0, others)  # refuses more than there is
        bought = int(np.searchsorted(sums, self.tokens, side="right"))
        if not bought:
            raise CuveeError(
                f"asked for {self.tokens} tokens, and the caption of the first row in order has {sums[0]}: "
                f"nothing would be kept; raise `tokens`"
            )
        chosen[order[:bought]] = True
        return chosen

    def facts(self) -> dict[str, Any]:
        """The budget as it was named."""
        return self.model_dump(mode="json", include=set(Budget.model_fields), exclude_none=True)


def _reasons(others: pl.DataFrame | None) -> str:
    """How many rows are not eligible, and why."""
    if others is None:
        return ""
    counts = others.group_by("reason").len().sort("len", "reason", descending=[True, False])
    reasons = ", ".join(f"{count} as {reason}" for reason, count in counts.iter_rows())
    return f", {len(others)} not eligible" + (f": {reasons}" if reasons else "")

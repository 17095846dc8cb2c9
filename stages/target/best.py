"""The best rows by one score: CLIP score, NormSim, negCLIPLoss, or any other column, at a budget.

What `top_fraction` does with a border, in the terms of the other selectors, so that a score can be held beside them at
the same budget: CLIP score alone is the baseline of DataComp (arXiv:2304.14108), NormSim_2 and NormSim_inf are
selectors of arXiv:2405.19547 once `normsim` has scored the pool.
"""

from typing import Annotated, Literal

import polars as pl
from pydantic import AfterValidator

from stages.order import numeric_name, require_numeric
from stages.rule import Context, gathered, whole_and_missing
from stages.selector import Ranking, Selector


class Best(Selector):
    """Ranks by `column`, the highest value first, or with `lowest` the lowest; without a value: `<column>_missing`."""

    kind: Literal["best"] = "best"
    column: Annotated[str, AfterValidator(numeric_name)]
    lowest: bool = False

    def reads(self) -> tuple[str, ...]:
        """The column."""
        return (self.column,)

    def rank(self, rows: pl.LazyFrame, context: Context) -> Ranking:
        """Take the values as they are.

        Raises:
            RecipeError: the column holds no numbers.
        """
        require_numeric(rows, self.column)
        scored, missing = whole_and_missing(gathered(rows, context, self.column), [self.column])
        value = pl.col(self.column).cast(pl.Float64)
        return Ranking(scored.select("uid", (-value if self.lowest else value).alias("score")), missing)

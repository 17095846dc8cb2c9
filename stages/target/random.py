"""A uniform draw without replacement: the baseline that every selector has to beat at its own budget."""

from typing import Literal

import polars as pl

from stages.noise import uniform_noise
from stages.rule import Context
from stages.selector import Ranking, Selector


class Random(Selector):
    """Ranks by hash(seed, uid): nothing else has a say, and a smaller draw is part of a larger one."""

    kind: Literal["random"] = "random"

    def reads(self) -> tuple[str, ...]:
        """Nothing."""
        return ()

    def rank(self, rows: pl.LazyFrame, context: Context) -> Ranking:
        """Hash the uids."""
        seed = context.seed

        def hashed(part: pl.DataFrame) -> pl.DataFrame:
            noise = uniform_noise(part["uid"].to_list(), seed, "random")
            return part.select("uid", pl.Series("score", noise, pl.Float64))

        return Ranking(pl.concat(context.each_part(rows, hashed)))

"""A fixed number of rows to stand for all: those with the smallest hash(seed, uid), wherever they lie."""

from collections.abc import Sequence

import numpy as np
import polars as pl

from stages.noise import uniform_noise
from stages.rule import Context
from stages.transport.features import whole


def sample(table: pl.DataFrame, count: int, seed: int, purpose: str) -> pl.DataFrame:
    """At most `count` rows with the smallest hash, the smallest first."""
    noise = uniform_noise(table["uid"].to_list(), seed, purpose)
    return table[np.lexsort((table["uid"].to_numpy(), noise))[:count]]


def sample_of_parts(
    rows: pl.LazyFrame, context: Context, columns: Sequence[str], count: int, purpose: str
) -> pl.DataFrame:
    """The same of all rows that lack none of the columns, each part bringing its smallest."""
    seed, names = context.seed, list(columns)

    def smallest(part: pl.DataFrame) -> pl.DataFrame:
        return sample(whole(part.select("uid", *names), names), count, seed, purpose)

    return sample(pl.concat(context.each_part(rows, smallest)), count, seed, purpose)


def rows_named(rows: pl.LazyFrame, context: Context, columns: Sequence[str], uids: pl.Series) -> pl.DataFrame:
    """The rows with these uids, in uid order."""
    wanted, names = pl.DataFrame({"uid": uids}), list(columns)

    def named(part: pl.DataFrame) -> pl.DataFrame:
        return part.select("uid", *names).join(wanted, on="uid", how="semi")

    return pl.concat(context.each_part(rows, named)).sort("uid")

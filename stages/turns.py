"""Several lists of the same rows take their best in turn: a budget is split evenly, whatever scales they have."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from stages.noise import uniform_noise

Doubles = npt.NDArray[np.float64]


def in_turn(uids: pl.Series, lists: Mapping[str, Doubles], seed: int, purpose: str) -> pl.DataFrame:
    """(uid, score, *lists) with the place of every row in every list, 1 for its highest value, and score = -min place.

    So the rows with a score >= -m are the m highest of each list, those that several lists name counted once; with
    lists that name other rows each gets its share of any budget, to the row. Equals by hash(seed, uid).

    Args:
        uids: (n,) of the rows.
        lists: name -> (n,) finite values.
        seed: of the recipe.
        purpose: whose ties these are.
    """
    tied = uniform_noise(uids.to_list(), seed, f"turns of {purpose}")
    table = pl.DataFrame({"uid": uids, **{name: _places(values, tied) for name, values in lists.items()}})
    return table.with_columns((-pl.min_horizontal(*lists)).cast(pl.Float64).alias("score"))


def _places(values: Doubles, tied: Doubles) -> npt.NDArray[np.int64]:
    places = np.empty(len(values), np.int64)
    places[np.lexsort((tied, -values))] = np.arange(1, len(values) + 1)
    return places


def shares_of_lists(kept: pl.DataFrame, names: list[str]) -> dict[str, Any]:
    """How the kept rows came in: m, per list how many of its m highest are kept, and how many rows several name.

    A tie at the border may have let in m of one list and m - 1 of another.
    """
    if kept.is_empty() or not names:
        return {"places": 0, "rows": dict.fromkeys(names, 0), "in_several": 0}
    border = int(-kept["score"].min())  # type: ignore[operator,arg-type]
    named = kept.select(pl.col(name) <= border for name in names)
    several = int((named.sum_horizontal() > 1).sum())
    return {"places": border, "rows": {name: int(named[name].sum()) for name in names}, "in_several": several}

"""A draw of a fixed number of rows, each at most once, that keeps a row as often as repeated draws would name it.

k draws with repeats name row j k p_j times on average. Here row j is kept with the chance pi_j = min(1, c p_j), where c
makes them add up to k: Pareto sampling (Rosen 1997) keeps the k largest of logit(pi_j) - logit(u_j) for uniform u_j,
with chances that are pi_j to a very good approximation. Drawing one after the other from what is left (Gumbel top-k)
would favour unlikely rows the more, the larger k is.
"""

from typing import cast

import numpy as np
import polars as pl

from stages.vectors import Doubles

CERTAIN = 1000.0
"""More than any difference of two logits in double precision."""


def chances(p: Doubles, rows: int) -> Doubles:
    """(n,) pi for probabilities p (n,) >= 0 of any sum: `rows` in all, or 1 wherever p > 0 if these are no more."""
    if np.count_nonzero(p) <= rows:
        return (p > 0).astype(np.float64)
    ordered = np.sort(p)[::-1]  # so that sums depend on the values alone
    rest = np.cumsum(ordered[::-1])[::-1]
    factors = (rows - np.arange(rows)) / rest[:rows]
    certain = int(np.argmax(factors * ordered[:rows] <= 1)) if (factors * ordered[:rows] <= 1).any() else rows - 1
    return cast(Doubles, np.minimum(p * factors[certain], 1.0))


def order(chance: Doubles, noise: Doubles) -> Doubles:
    """(n,) what a row with this chance > 0 and noise in (0, 1) is ranked by, the largest first."""
    found = np.full(len(chance), CERTAIN)
    drawn = chance < 1
    found[drawn] = _logit(chance[drawn]) - _logit(noise[drawn])
    return found


def weights(kept: pl.DataFrame) -> pl.DataFrame:
    """(uid, weight) of kept rows (uid, p, chance): p / pi with mean 1, unbiased for sums over p (Horvitz and Thompson).

    Rows without a probability, kept where those with one run out, weigh as little as the least of these.
    """
    p, chance = kept["p"].to_numpy(), kept["chance"].to_numpy()
    weight = np.ones(len(p))
    weight[p > 0] = p[p > 0] / chance[p > 0]
    weight[p == 0] = weight[p > 0].min(initial=1.0)
    return kept.select("uid", pl.Series("weight", weight / weight.mean()))


def _logit(chance: Doubles) -> Doubles:
    return cast(Doubles, np.log(chance) - np.log1p(-chance))

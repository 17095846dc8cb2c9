"""What a draw came to: how near the drawn captions are to the target's, beside a random draw and the whole pool."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from stages.budget import Mask
from stages.measures.divergence import kl_divergence
from stages.noise import uniform_noise
from stages.target.dsir.captions import Pool
from stages.target.dsir.weights import folded
from stages.tokens import Integers


@dataclass(frozen=True)
class Counted:
    """Histograms (B,) of what was drawn, of the whole pool, and of as many eligible captions drawn at random."""

    selected: Integers
    pool: Integers
    random: Integers

    def divergences(self, target: Integers) -> dict[str, float]:
        """KL(target || each) in nats.

        Compare `selected` with `random`: the pseudo-counts weigh more in a small set than in the whole pool.
        """
        return {name: kl_divergence(folded(target), folded(counts)) for name, counts in vars(self).items()}


def count_draws(pool: Pool, eligible: pl.DataFrame, chosen: Sequence[Mask], seed: int) -> list[Counted]:
    """What each draw `chosen` (n,) of the `eligible` rows (uid, place; in uid order) came to."""
    beside = [at_random(eligible["uid"], int(mask.sum()), seed) for mask in chosen]
    found = pool.histograms([eligible["place"].filter(pl.Series(mask)) for mask in (*chosen, *beside)])
    pairs = zip(found[: len(chosen)], found[len(chosen) :], strict=True)
    return [Counted(selected, pool.whole, random) for selected, random in pairs]


def at_random(uids: pl.Series, samples: int, seed: int) -> Mask:
    """(n,) True for `samples` of the rows, given in uid order."""
    chosen = np.zeros(len(uids), np.bool_)
    chosen[np.argsort(uniform_noise(uids.to_list(), seed, "dsir random"), kind="stable")[:samples]] = True
    return chosen

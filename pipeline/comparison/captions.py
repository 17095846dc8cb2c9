"""KL(target || selection) of caption n-grams, in buckets so many that they favour no selector's own."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import polars as pl

from pipeline.comparison.selections import Selections, by_yardstick
from schemas.columns import CAPTION
from stages.measures.divergence import coverage, smoothed_divergence
from stages.ngrams import Ngrams, hash_ngrams

Integers = npt.NDArray[np.int64]
Bag = tuple[Integers, Integers]
"""Buckets that occur, and how often."""

BUCKETS = 2**20
"""Nearly free of collisions, and the buckets of no selector."""
LONGEST = 2


def divergences(selections: Selections) -> list[dict[str, float]]:
    """Per selection KL to the target in nats, >= 0, see `by_yardstick`; nothing for captions that share no n-gram."""
    columns = selections.columns()
    counts = [np.zeros(BUCKETS, np.int64) for _ in columns]
    for bags in selections.each_part(CAPTION.name, lambda part: _bags(part, columns)):
        for total, (buckets, times) in zip(counts, bags, strict=True):
            total[buckets] += times
    targets = {name: _hashed(selections.target(name, CAPTION.name)).histogram() for name in selections.yardsticks}
    pool = counts[0]  # the first selection is all of it
    if not all(coverage(target, pool) for target in targets.values()):
        return [{} for _ in counts]
    found = {name: [smoothed_divergence(t, c, pool) for c in counts] for name, t in targets.items()}
    return by_yardstick("kl", found)


def _hashed(rows: pl.DataFrame) -> Ngrams:
    return hash_ngrams(rows[CAPTION.name].fill_null("").to_list(), LONGEST, BUCKETS, "xxh3")


def _bags(part: pl.DataFrame, columns: Sequence[str]) -> list[Bag]:
    """Small enough to travel: a selection of few rows has few buckets."""
    ngrams = _hashed(part)
    found = []
    for name in columns:
        counts = ngrams.histogram(part[name].to_numpy())
        buckets = np.flatnonzero(counts)
        found.append((buckets, counts[buckets]))
    return found

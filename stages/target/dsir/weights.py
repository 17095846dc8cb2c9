"""Importance weights and divergence on n-gram histograms; pure functions of arrays."""

from dataclasses import dataclass
from math import fsum, sqrt
from typing import Literal

import numpy as np

from stages.measures.divergence import frequencies
from stages.ngrams import Doubles, Ngrams
from stages.tokens import Integers

Mode = Literal["caption", "exact"]
FLOOR = 1e-8
"""Added to both probabilities before the logarithm, as published."""
SHARPNESS = 4.0
"""Standard deviation of per-token scores; Gumbel noise has 1.28."""
LEAST_DEVIATION = 1e-9
"""Of log weights, which are of the order of 1: below it they differ by rounding, where target and pool are the same."""
YARDSTICK = 10_000
"""Buckets that divergences are measured in at most: pseudo-counts in more would drown the n-grams of a small draw."""
BUCKETS: dict[Mode, int] = {"caption": 2**18, "exact": 10_000}
SMOOTHING: dict[Mode, float] = {"caption": 10.0, "exact": 0.0}
MIN_LENGTH: dict[Mode, int] = {"caption": 1, "exact": 100}


@dataclass(frozen=True)
class Weights:
    """How much more likely each text is under the target than under the pool."""

    log: Doubles
    """(n,) sum of log ratios over a text's n-grams (exact), or their mean per token (caption)."""
    length: Integers
    """(n,) tokens; in exact mode as the published formula recovers them from the n-gram count."""


def log_ratio(target: Integers, pool: Integers, mode: Mode, smoothing: float | None = None) -> Doubles:
    """(B,) log(p + 1e-8) - log(q + 1e-8) of the target's and the pool's bucket frequencies.

    Exact mode: p = (c + a) / sum(c + a) with a = `smoothing` pseudo-counts per bucket, default 0.
    Caption mode: p = (c / sum(c) + s q) / (1 + s) with s = `smoothing`, default 10.

    A target of a few captions lacks most n-grams by chance alone: mixed with the pool it is believed only as far as it
    departs from the pool. No ratio is below log(s / (1 + s)), and a rare word's high one counts by its logarithm only
    beyond 1 + s times the pool's frequency. Laplace counts on both sides did worse for every size of target tried, and
    no better than a random draw for 100 captions.
    """
    extra = SMOOTHING[mode] if smoothing is None else smoothing
    q = frequencies(pool, 0.0)
    p = frequencies(target, extra) if mode == "exact" else (frequencies(target, 0.0) + extra * q) / (1 + extra)
    return np.log(p + FLOOR) - np.log(q + FLOOR)


def log_weights(pool: Ngrams, target: Integers, mode: Mode = "caption", smoothing: float | None = None) -> Weights:
    """Weigh each text of the pool against the target's histogram (B,); the ratio is fitted on the whole pool."""
    return weigh(pool, log_ratio(target, pool.histogram(), mode, smoothing), mode)


def weigh(pool: Ngrams, ratio: Doubles, mode: Mode) -> Weights:
    """Weigh each text by the log ratios (B,).

    Exact mode: the published sum over n-grams, and the length L = (count + n(n-1)/2) // n that its filter uses.
    """
    total = pool.sums(ratio)
    if mode == "caption":
        return Weights(total / np.maximum(pool.tokens, 1), pool.tokens)
    n = len(pool.buckets)
    return Weights(total, (pool.counts() + n * (n - 1) // 2) // n)


def spread(log: Doubles) -> float:
    """Standard deviation of (n,) weights, 0 for none; summed exactly, so the same for the same texts in any order."""
    if not len(log):
        return 0.0
    mean = fsum(log.tolist()) / len(log)
    return sqrt(fsum(((log - mean) ** 2).tolist()) / len(log))


def scores(log: Doubles, sharpness: float | None, deviation: float | None = None) -> Doubles:
    """(n,) what Gumbel noise is added to: the log weights; with a `sharpness` s per-token weights z as s z / deviation.

    The deviation is by default that of z itself; at most `LEAST_DEVIATION`, all weights count as equal.
    """
    if sharpness is None:
        return log
    deviation = spread(log) if deviation is None else deviation
    return sharpness * log / deviation if deviation > LEAST_DEVIATION else np.zeros_like(log)


def folded(counts: Integers) -> Integers:
    """A histogram (B,) in min(B, 10,000) buckets."""
    return np.bincount(np.arange(len(counts)) % YARDSTICK, counts).astype(np.int64)

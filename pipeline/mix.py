"""From shares to draws: quotas by largest remainder, then the rows of each source by Gumbel top-k on their weights."""

import math
from collections.abc import Mapping
from fractions import Fraction

import numpy as np
import polars as pl

from schemas.errors import ContractError, CuveeError
from stages.noise import gumbel_noise

DRAWS_SCHEMA = {"uid": pl.String, "repeats": pl.Int32}
SUM_TOLERANCE = 1e-6
"""How far shares may be from adding up to 1: they come rounded."""


def natural_shares(counts: Mapping[str, int]) -> dict[str, float]:
    """Each source's share of all rows, sorted by source, summing to 1.

    Raises:
        CuveeError: there are no rows at all.
    """
    total = sum(counts.values())
    if total <= 0:
        raise CuveeError(f"found no rows in {len(counts)} sources; shares need at least one row")
    return {source: counts[source] / total for source in sorted(counts)}


def quotas(
    shares: Mapping[str, float], available: Mapping[str, int], samples: int, max_repeats: int = 1
) -> dict[str, int]:
    """Rows to draw per source, sorted by source: integers that sum to `samples`, by largest remainder.

    No source gets more than `max_repeats` times its rows; what a cap leaves over goes to the others in proportion
    to their shares, and when those are full too, to sources of share 0 in proportion to their rows. Equal
    remainders go to the name that sorts first. The arithmetic is exact, on the shares' decimal digits.

    Args:
        shares: a point on the simplex; a source that is not named has share 0.
        available: surviving rows per source.
        samples: rows to draw, repeats included.
        max_repeats: how often one row may be drawn at most, >= 1.

    Raises:
        CuveeError: more samples than `max_repeats` times all rows, with both numbers.
        ContractError: the shares are no point on the simplex.
    """
    _refuse(shares, available, samples, max_repeats)
    limits = {source: max_repeats * available[source] for source in sorted(available)}
    exact = _filled({source: _exact(shares.get(source, 0.0)) for source in limits}, limits, available, samples)
    counts = {source: math.floor(value) for source, value in exact.items()}
    by_remainder = sorted(counts, key=lambda source: (counts[source] - exact[source], source))
    for source in by_remainder[: samples - sum(counts.values())]:
        counts[source] += 1
    return counts


def _refuse(shares: Mapping[str, float], available: Mapping[str, int], samples: int, max_repeats: int) -> None:
    values = list(shares.values())
    if not all(math.isfinite(value) and value >= 0 for value in values) or abs(sum(values) - 1) > SUM_TOLERANCE:
        raise ContractError(f"expected shares >= 0 that sum to 1, found {dict(shares)}")
    if max_repeats < 1:
        raise ContractError(f"expected max_repeats >= 1, found {max_repeats}")
    possible = max_repeats * sum(available.values())
    if samples > possible:
        raise CuveeError(
            f"{samples} samples are asked for, but {sum(available.values())} surviving rows drawn at most "
            f"{max_repeats} times give {possible}; lower export.samples, raise max_repeats or loosen the rules"
        )


def _exact(share: float) -> Fraction:
    """The decimal number a share is written as: 0.1 is a tenth, so that equal remainders are equal."""
    return Fraction(repr(float(share)))


def _filled(
    shares: Mapping[str, Fraction], limits: Mapping[str, int], available: Mapping[str, int], samples: int
) -> dict[str, Fraction]:
    """Amounts in proportion to the shares, none above its limit, summing to `samples` exactly."""
    amounts = dict.fromkeys(limits, Fraction(0))
    spare = {source: Fraction(available[source]) for source, share in shares.items() if not share}
    for ratios in ({source: share for source, share in shares.items() if share}, spare):
        left = samples - sum(amounts.values(), Fraction(0))
        amounts |= _poured(ratios, limits, left)
    return amounts


def _poured(ratios: dict[str, Fraction], limits: Mapping[str, int], left: Fraction) -> dict[str, Fraction]:
    """`left` in proportion to the ratios; a source that would pass its limit is filled and set aside."""
    amounts: dict[str, Fraction] = {}
    while ratios and left:
        unit = left / sum(ratios.values()) if any(ratios.values()) else Fraction(0)
        full = [source for source, ratio in ratios.items() if ratio * unit >= limits[source]]
        if not full:
            return amounts | {source: ratio * unit for source, ratio in ratios.items()}
        for source in full:
            amounts[source] = Fraction(limits[source])
            left -= limits[source]
        ratios = {source: ratio for source, ratio in ratios.items() if source not in amounts}
    return amounts


def draw(rows: pl.DataFrame, quotas: Mapping[str, int], seed: int) -> pl.DataFrame:
    """How often each row is drawn: (uid, repeats) for every given row, in uid order; repeats may be 0.

    A quota q over a source's n rows gives each floor(q / n); the remaining q mod n rows are the top of
    log(weight) + Gumbel noise keyed (seed, uid), i.e. drawn by weight without replacement (Kool, van Hoof and
    Welling, arXiv:1903.06059). Ties end at uid. No row is drawn more often than ceil(q / n).

    Args:
        rows: uid, source and weight > 0, in any order; other columns are ignored.
        quotas: rows to draw per source; a source that is not named gets 0.
        seed: the recipe's seed.

    Raises:
        ContractError: a quota for a source without rows, or a weight that is not above 0.
    """
    _refuse_rows(rows, quotas)
    parts = [pl.DataFrame(schema=DRAWS_SCHEMA)]
    for (source,), part in rows.partition_by("source", as_dict=True).items():
        parts.append(_drawn(part, quotas.get(source, 0), seed))
    return pl.concat(parts).sort("uid")


def _refuse_rows(rows: pl.DataFrame, quotas: Mapping[str, int]) -> None:
    empty = sorted({source for source, count in quotas.items() if count} - set(rows["source"].unique()))
    if empty:
        raise ContractError(f"source {empty[0]!r} has no rows but a quota of {quotas[empty[0]]}")
    weights = rows["weight"]
    if weights.null_count() or not (weights.is_finite() & (weights > 0)).all():
        raise ContractError(
            "expected finite weights > 0 for every row to draw from; drop a row instead of weighing it 0"
        )


def _drawn(rows: pl.DataFrame, quota: int, seed: int) -> pl.DataFrame:
    each, extra = divmod(quota, len(rows))
    repeats = np.full(len(rows), each, np.int32)
    rows = rows.sort("uid")
    if extra:
        keys = np.log(rows["weight"].to_numpy()) + gumbel_noise(rows["uid"].to_list(), seed, "draw")
        repeats[np.argsort(-keys, kind="stable")[:extra]] += 1
    return rows.select("uid", pl.Series("repeats", repeats))

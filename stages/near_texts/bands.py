"""Locality-sensitive hashing (Indyk and Motwani, 1998): which sets are worth comparing.

A signature is cut into b bands of r minima. Two sets of Jaccard index s share a band with probability s^r, and at least
one of them with 1 - (1 - s^r)^b. datasketch balances what is missed against what is compared in vain: of pairs at the
threshold 0.8 it misses 60 %. Pairs are verified here, so only time is lost by vain ones, and b and r are
chosen for what is found at the threshold.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import ceil, log1p

import numpy as np
import numpy.typing as npt

from schemas.errors import RecipeError
from stages.near_texts.shingles import MULTIPLIER, Flags, Hashes, Integers, ranges
from stages.near_texts.signatures import Words

Worth = Callable[[Integers, Integers], Flags]
"""Which pairs of places (m,), (m,) are worth comparing."""

BLOCK_PAIRS = 1 << 18
"""Pairs looked at at a time, more only where one set has more to compare with."""


def found_share(jaccard: float, bands: int, rows: int) -> float:
    """1 - (1 - s^r)^b: the share of pairs of this Jaccard index that are compared."""
    return 1 - (1 - jaccard**rows) ** bands


def choose_bands(threshold: float, recall: float, permutations: int) -> tuple[int, int]:
    """(b, r): the most rows, hence the fewest vain comparisons, in the fewest bands that find `recall` at `threshold`.

    Raises:
        RecipeError: there are too few permutations for that.
    """
    for rows in range(permutations, 0, -1):
        agree = threshold**rows
        if permutations * agree < recall:  # b bands find b s^r at most, and a vanishing s^r needs more than any number
            continue
        bands = 1 if agree >= recall else ceil(log1p(-recall) / log1p(-agree))
        if bands * rows <= permutations:
            return bands, rows
    raise RecipeError(
        f"{permutations} permutations cannot find {recall} of the pairs at a Jaccard index of {threshold}; "
        f"raise `permutations` or the threshold, or lower `recall`"
    )


def band_keys(signature: Words, bands: int, rows: int) -> Hashes:
    """(bands, n) a key of each band of a signature (bands x rows, n). Two bands with one key may still differ."""
    keys = np.zeros((bands, signature.shape[1]), np.uint64)
    for key, band in zip(keys, signature.reshape(bands, rows, -1), strict=True):
        for minimum in band:
            key ^= minimum
            key *= MULTIPLIER
            key ^= key >> np.uint64(32)
    return keys


@dataclass(frozen=True)
class Buckets:
    """What shares a band's key with others: bucket after bucket, in each the places in ascending order."""

    places: npt.NDArray[np.int32]
    numbers: npt.NDArray[np.int32]
    """The bucket of each place."""

    def only(self, chosen: Flags) -> "Buckets":
        """Those places that are chosen (n,)."""
        kept = chosen[self.places]
        return Buckets(self.places[kept], self.numbers[kept])

    def starts(self) -> Integers:
        """For each place where its bucket begins."""
        first = np.flatnonzero(np.diff(self.numbers, prepend=-1))
        return np.repeat(first, np.diff(first, append=len(self.numbers)))


def buckets(keys: Hashes) -> Buckets:
    """The buckets with at least two places of one band's keys (n,), which are well mixed.

    A place takes the room of a key's last bits, so that one sort of numbers does all: of 10^6 keys 44 bits count, and
    per band there is one pair in vain for every 30 such sets of keys.
    """
    n = len(keys)
    mask = np.uint64((1 << max(n - 1, 1).bit_length()) - 1)
    ordered = np.sort((keys & ~mask) | np.arange(n, dtype=np.uint64))
    same = np.zeros(n + 1, np.bool_)
    same[1:n] = (ordered[1:] ^ ordered[:-1]) <= mask
    shared = same[1:] | same[:n]
    numbers = np.cumsum(~same[:n])[shared]
    return Buckets((ordered[shared] & mask).astype(np.int32), numbers.astype(np.int32))


def candidates(
    bands: Sequence[Buckets], earlier: Flags, later: Flags, worth: Worth | None = None
) -> Iterator[tuple[Integers, Integers]]:
    """Blocks of pairs (first, second) that share a bucket, first < second, each pair once, and only those worth it.

    First are places of `earlier` (n,), second of `later` (n,); either these are the same places, or all of the earlier
    ones come before all of the later ones. Blocks are cut by second place and hold about `BLOCK_PAIRS`, a pair counted
    for each bucket that it shares, so memory does not depend on how full a bucket is.
    """
    n = len(earlier)
    runs = [_runs(each.only(earlier | later), earlier, later) for each in bands]
    load = np.zeros(n, np.int64)
    for run in runs:
        np.add.at(load, run.second, run.counts)
    total = np.cumsum(load)
    begin = 0
    while begin < n and total[-1] > (before := total[begin - 1] if begin else 0):
        end = max(int(np.searchsorted(total, before + BLOCK_PAIRS, side="right")), begin + 1)
        given = [run.pairs(begin, end) for run in runs]
        first, second = (np.concatenate(side) for side in zip(*given, strict=True))
        if worth is not None:
            chosen = worth(first, second)
            first, second = first[chosen], second[chosen]
        codes = np.sort(second.astype(np.int64) * n + first)
        second, first = np.divmod(codes[np.diff(codes, prepend=-1) > 0], n)  # np.unique would hash, and take longer
        yield first, second
        begin = end


def load(bands: Sequence[Buckets], earlier: Flags, later: Flags) -> int:
    """How many pairs `candidates` has to look at, one counted for each bucket that it shares."""
    return sum(int(_runs(each.only(earlier | later), earlier, later).counts.sum()) for each in bands)


@dataclass(frozen=True)
class _Runs:
    """For places of one band, in ascending order, which run of its bucket's places they are to be compared with."""

    places: npt.NDArray[np.int32]
    second: npt.NDArray[np.int32]
    starts: Integers
    counts: Integers

    def pairs(self, begin: int, end: int) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
        """(first, second) of all pairs whose second place is in [begin, end)."""
        some = slice(*np.searchsorted(self.second, (begin, end)))
        first = self.places.take(ranges(self.starts[some], self.counts[some]))
        return first, np.repeat(self.second[some], self.counts[some])


def _runs(members: Buckets, earlier: Flags, later: Flags) -> _Runs:
    starts = members.starts()
    before: Integers = np.cumsum(earlier[members.places]) - earlier[members.places]
    counts = np.where(later[members.places], before - before[starts], 0)
    asked = np.flatnonzero(counts)
    asked = asked[np.argsort(members.places[asked])]
    return _Runs(members.places, members.places[asked], starts[asked], counts[asked])

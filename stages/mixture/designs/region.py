"""Where mixtures may lie: the simplex, cut by an upper bound on the share of each source."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations
from math import factorial

import numpy as np
import numpy.typing as npt
import xxhash

from schemas.errors import CuveeError

Doubles = npt.NDArray[np.float64]
DIGITS = 12
"""Decimals to which two corners have to agree to be one."""
TRIED_DIGITS = 6
"""Decimals to which two mixtures have to agree to be one trial: a millionth more of a source teaches nothing."""
MOST_ORDERS = 5040
"""Orders of filling from which corners are made; those of seven sources are all of them."""


def noise(seed: int, purpose: str) -> np.random.Generator:
    """Random numbers that depend on (seed, purpose) alone."""
    return np.random.Generator(np.random.Philox(xxhash.xxh3_64_intdigest(f"{seed}/{purpose}".encode())))


@dataclass(frozen=True)
class Region:
    """{p : p >= 0, sum p = 1, p <= upper}, of S sources."""

    sources: tuple[str, ...]
    prior: Doubles
    """(S,) shares that designs lean to or begin with; on the simplex, not necessarily below `upper`."""
    upper: Doubles
    """(S,)."""

    @classmethod
    def of(cls, sources: Sequence[str], prior: Doubles, upper: Doubles | None) -> "Region":
        """Check and hold.

        Raises:
            CuveeError: fewer than two sources, a prior off the simplex, or upper bounds that add up to less than 1.
        """
        names, size = tuple(sources), len(sources)
        if size < 2:
            raise CuveeError(f"there is nothing to mix: found {size} source(s), {', '.join(names)}; name at least two")
        caps = np.ones(size) if upper is None else np.minimum(np.asarray(upper, np.float64), 1.0)
        shares = np.asarray(prior, np.float64)
        if shares.shape != (size,) or (shares < 0).any() or abs(shares.sum() - 1) > 1e-6:
            raise CuveeError(f"the prior is {shares.tolist()}; expected {size} shares that add up to 1, one a source")
        if caps.shape != (size,) or (caps < 0).any() or caps.sum() < 1 - 1e-9:
            listed = ", ".join(f"{name} {cap:.4g}" for name, cap in zip(names, caps, strict=True))
            raise CuveeError(
                f"no mixture stays below the upper bounds: they add up to {caps.sum():.4g}, less than 1 ({listed}); "
                "lower the largest budget, or allow more repeats"
            )
        return cls(names, shares / shares.sum(), caps)

    @property
    def size(self) -> int:
        """S."""
        return len(self.sources)

    def holds(self, mixtures: Doubles) -> npt.NDArray[np.bool_]:
        """(n,) which of (n, S) lie inside."""
        inside: npt.NDArray[np.bool_] = (
            (mixtures >= -1e-9).all(axis=1)
            & (mixtures <= self.upper + 1e-9).all(axis=1)
            & (abs(mixtures.sum(axis=1) - 1) <= 1e-9)
        )
        return inside

    def within(self, mixtures: Doubles) -> Doubles:
        """(n, S) mixtures with what a bound cuts off given to the others, in proportion to their shares.

        Where the others have no share at all, in proportion to the room they have. Each round fills a bound or ends.
        """
        shares = np.minimum(np.atleast_2d(mixtures), self.upper)
        for _ in range(self.size):
            missing = 1 - shares.sum(axis=1, keepdims=True)
            room = self.upper - shares
            growing = np.where(room > 0, shares, 0.0)
            growing = np.where(growing.sum(axis=1, keepdims=True) > 0, growing, room)
            whole = np.maximum(growing.sum(axis=1, keepdims=True), 1e-300)
            shares = np.minimum(shares + np.maximum(missing, 0) * growing / whole, self.upper)
        filled: Doubles = shares / shares.sum(axis=1, keepdims=True)
        return filled

    def anchors(self) -> Doubles:
        """(2, S) the prior and the uniform mixture, as far as the bounds allow."""
        return self.within(np.vstack([self.prior, np.full(self.size, 1 / self.size)]))

    def corners(self, seed: int) -> Doubles:
        """(v, S) corners of the region, in lexicographic order.

        Sources filled up to their bounds one after the other give a corner, and every corner has such an order. Of more
        orders than `MOST_ORDERS` a random part is tried, in which each source comes first equally often.
        """
        orders = self._orders(seed)
        caps = self.upper[orders]
        before = np.cumsum(caps, axis=1) - caps
        filled = np.clip(1 - before, 0, caps)
        points = np.empty_like(filled)
        np.put_along_axis(points, orders, filled, axis=1)
        return np.unique(np.round(points, DIGITS), axis=0)

    def _orders(self, seed: int) -> npt.NDArray[np.int64]:
        if (self.upper >= 1).all():  # the first takes all
            return np.array([np.roll(np.arange(self.size), -first) for first in range(self.size)])
        if factorial(self.size) <= MOST_ORDERS:
            return np.array(list(permutations(range(self.size))))
        tries = max(1, MOST_ORDERS // self.size)
        random = noise(seed, "corners")
        orders = np.array([random.permutation(self.size) for _ in range(tries)])
        # A rotation of each order for each source brings it to the front.
        return np.vstack([np.roll(orders, -first, axis=1) for first in range(self.size)])


def distinct(mixtures: Doubles) -> Doubles:
    """The first of each, in the given order."""
    _, first = np.unique(np.round(mixtures, TRIED_DIGITS), axis=0, return_index=True)
    return mixtures[np.sort(first)]

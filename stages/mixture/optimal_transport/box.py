"""Shares within limits: the simplex between lower and upper bounds, and Kullback-Leibler steps into it."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Doubles = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]

_HALVINGS = 100
_FAR = 80.0
_NOTHING = 1e-300
_TINY = 1e-12


@dataclass(frozen=True)
class Box:
    """{p : lower <= p <= upper, sum p = 1}, which must not be empty."""

    lower: Doubles
    """(S,) in [0, 1]."""
    upper: Doubles
    """(S,) in [0, 1]."""

    @staticmethod
    def free(sources: int) -> "Box":
        """The whole simplex."""
        return Box(np.zeros(sources), np.ones(sources))

    @staticmethod
    def only(sources: int, chosen: list[int]) -> "Box":
        """The face of the simplex with these sources."""
        upper = np.zeros(sources)
        upper[chosen] = 1.0
        return Box(np.zeros(sources), upper)

    @staticmethod
    def point(shares: Doubles) -> "Box":
        """Nothing but these shares (S,)."""
        return Box(shares, shares)

    def lowest(self, slopes: Doubles) -> Doubles:
        """(S,) the shares where slopes (S,) @ p is smallest: the cheapest sources are filled first."""
        shares, left = self.lower.copy(), 1.0 - self.lower.sum()
        for i in np.argsort(slopes, kind="stable"):
            more = min(self.upper[i] - shares[i], max(left, 0.0))
            shares[i] += more
            left -= more
        return shares

    def nearest(self, logs: Doubles) -> tuple[Doubles, Flags]:
        """argmin of KL(p || y) over the box for y = exp(logs) (S,), and which shares are not held by a limit.

        p_i = clip(s y_i, lower_i, upper_i); the scale s is found by halving its logarithm's range.
        """
        low, high = -logs.max() - _FAR, -logs.min()
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            low, high = (low, middle) if self._at(logs, middle).sum() > 1 else (middle, high)
        shares = self._at(logs, high)
        free = (shares > self.lower + _TINY) & (shares < self.upper)
        if free.any():  # what halving leaves
            shares[free] *= (1 - shares[~free].sum()) / shares[free].sum()
        return shares, free

    def _at(self, logs: Doubles, scale: float) -> Doubles:
        shares: Doubles = np.clip(np.exp(np.minimum(logs + scale, 0.0)), self.lower, self.upper)
        return shares


def divergence(shares: Doubles, prior: Doubles) -> float:
    """KL(p || q) = sum p log(p / q) for shares (S,) and a prior (S,) > 0, in nats, >= 0."""
    held = shares > 0
    return float((shares[held] * np.log(shares[held] / prior[held])).sum())


def logarithms(shares: Doubles) -> Doubles:
    """(S,) log p, finite where p is 0."""
    logs: Doubles = np.log(np.maximum(shares, _NOTHING))
    return logs

"""What is minimised: laws of metrics over shares, a divergence from a prior, bounds, and metrics that must not rise.

    min over p   sum_m w_m f_m(p) + lambda KL(p || prior)
    s.t.         lower <= p <= upper,  sum p = 1,  f_m(p) <= ceiling_m

Olmix's program (log-linear f, lambda 0.05) with several metrics and ceilings. Mixture reuse is a change of variables:
p = B q, where a column of B holds the ratios that a group of sources keeps; bounds and prior turn into those of q, with
KL(B q || prior) = sum_k q_k log(q_k / r_k),  log r_k = -KL(B_k || prior), since the columns share no source.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np

from schemas.errors import CuveeError
from stages.mixture.proposer.box import Box, Doubles, divergence

_SAME = 1e-12
SMALLEST = 1e-12
"""Shares below count as this much in the slope of the divergence, which is without bound at 0."""


class Law(Protocol):
    """A metric as a function of the mixture."""

    @property
    def convex(self) -> bool:
        """Of `predict`, over the simplex."""

    @property
    def smooth(self) -> bool:
        """Whether `gradient` answers."""

    def predict(self, mixtures: Doubles) -> Doubles:
        """(n, S) -> (n,)."""

    def gradient(self, mixtures: Doubles) -> Doubles:
        """(n, S) -> (n, S)."""


@dataclass(frozen=True, eq=False)
class Metric:
    """One metric in the program."""

    name: str
    law: Law
    weight: float
    """In the objective, of `(f - origin) / scale`; 0: only its ceiling counts."""
    scale: float = 1.0
    """What counts as a typical difference in this metric, > 0."""
    origin: float = 0.0
    ceiling: float | None = None
    """The most it may be, in its own units."""


@dataclass(frozen=True)
class Limits:
    """Per source or group, the setting behind its bounds; empty where there is none."""

    lower: tuple[str, ...]
    upper: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Program:
    """The program over groups' shares q (k,), each group being one source unless ratios are kept."""

    metrics: tuple[Metric, ...]
    box: Box
    prior: Doubles
    """(k,) > 0 where the box leaves room, if `strength` is above 0; need not sum to 1."""
    strength: float
    """lambda, in units of the objective."""
    basis: Doubles
    """(S, k) shares of the sources in each group; columns sum to 1."""
    limits: Limits
    """What the bounds are called."""

    @cached_property
    def convex(self) -> bool:
        """Whether a local optimum is the optimum."""
        return all(metric.law.convex for metric in self._counting)

    @cached_property
    def smooth(self) -> bool:
        """Whether there are slopes to follow."""
        return all(metric.law.smooth for metric in self._counting)

    @property
    def _counting(self) -> list[Metric]:
        return [metric for metric in self.metrics if metric.weight or metric.ceiling is not None]

    @cached_property
    def ceilings(self) -> tuple[Metric, ...]:
        """The metrics that have one."""
        return tuple(metric for metric in self.metrics if metric.ceiling is not None)

    def data(self, points: Doubles) -> Doubles:
        """(n, k) -> (n,): the weighted metrics, without the divergence."""
        total = np.zeros(len(points))
        for metric in self.metrics:
            if metric.weight:
                total += metric.weight * (metric.law.predict(points @ self.basis.T) - metric.origin) / metric.scale
        return total

    def value(self, points: Doubles) -> Doubles:
        """(n, k) -> (n,): the objective."""
        return self.data(points) + (self.strength * divergence(points, self.prior) if self.strength else 0.0)

    def data_slope(self, point: Doubles) -> Doubles:
        """(k,): the gradient of `data`."""
        slope = np.zeros(len(point))
        for metric in self.metrics:
            if metric.weight:
                slope += metric.weight / metric.scale * self._slope(metric, point)
        return slope

    def slope(self, point: Doubles) -> Doubles:
        """(k,): the gradient of `value`; that of the divergence as at a share of `SMALLEST` where it is smaller."""
        if not self.strength:
            return self.data_slope(point)
        free = self.prior > 0
        ratio = np.maximum(point, SMALLEST) / np.where(free, self.prior, 1.0)
        return self.data_slope(point) + self.strength * np.where(free, np.log(ratio) + 1, 0.0)

    def excess(self, points: Doubles) -> Doubles:
        """(n, k) -> (n, ceilings): how far metrics are above their ceilings, in their scales; <= 0 is allowed."""
        mixtures = points @ self.basis.T
        rows = [(metric.law.predict(mixtures) - (metric.ceiling or 0.0)) / metric.scale for metric in self.ceilings]
        return np.stack(rows, axis=1) if rows else np.zeros((len(points), 0))

    def excess_slopes(self, point: Doubles) -> Doubles:
        """(ceilings, k): gradients of `excess`."""
        rows = [self._slope(metric, point) / metric.scale for metric in self.ceilings]
        return np.array(rows).reshape(-1, len(point))

    def _slope(self, metric: Metric, point: Doubles) -> Doubles:
        slope: Doubles = metric.law.gradient((self.basis @ point)[None])[0] @ self.basis
        return slope


def program(
    metrics: Sequence[Metric],
    box: Box,
    prior: Doubles,
    strength: float,
    basis: Doubles | None = None,
    limits: Limits | None = None,
) -> Program:
    """The program for bounds and prior (S,) of sources; with `basis` (S, k) over the groups whose ratios it keeps.

    The bounds of a group are those that all its sources can keep.

    Raises:
        CuveeError: the groups' bounds leave no shares; says which two limits collide.
    """
    limits = limits or Limits(("",) * len(prior), ("",) * len(prior))
    if strength:
        box = Box(box.lower, np.where(prior > 0, box.upper, 0.0))
    if basis is None:
        return Program(tuple(metrics), box, prior, strength, np.eye(len(prior)), limits)
    with np.errstate(divide="ignore", invalid="ignore"):
        lower = np.where(basis > 0, box.lower[:, None] / basis, 0.0)
        upper = np.where(basis > 0, box.upper[:, None] / basis, np.inf)
    least, most = lower.argmax(axis=0), upper.argmin(axis=0)
    named = Limits(tuple(limits.lower[i] for i in least), tuple(limits.upper[i] for i in most))
    groups = Box(lower.max(axis=0), np.minimum(upper.min(axis=0), 1.0))
    _refuse_empty(groups, named)
    pull = np.exp(-divergence(basis.T, prior)) if strength else np.ones(basis.shape[1])
    return Program(tuple(metrics), groups, pull, strength, basis, named)


def _refuse_empty(box: Box, limits: Limits) -> None:
    crossed = np.flatnonzero(box.lower > box.upper + _SAME)
    if crossed.size:
        low, high = limits.lower[crossed[0]], limits.upper[crossed[0]]
        raise CuveeError(f"with the ratios that are kept, {low} and {high or 'shares of at most 1'} collide; lower one")
    if box.lower.sum() > 1 + _SAME or box.upper.sum() < 1 - _SAME:
        every = [why for why in (limits.upper if box.upper.sum() < 1 - _SAME else limits.lower) if why]
        raise CuveeError(f"with the ratios that are kept, {' and '.join(every[:2])} collide; loosen one")

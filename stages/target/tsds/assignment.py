"""The optimal transport plan of TSDS in closed form.

For a given cap t = max_ij M rho_j g_ij each example fills its nearest rows first, each with t / (M rho_j), until its
mass 1 / M is gone. With s = 1 / t and S_ik the sum of 1 / rho over example i's k nearest, the full ones are those with
S_ik <= s. Where s passes S_ik, lowering t further moves mass to row k + 1, and the cost's slope, in units of 1 / M,
becomes h_i = d_i,k+1 S_ik - sum_{l <= k} d_il / rho_l. The objective is convex in t: s stops where
alpha / C sum_i h_i reaches (1 - alpha) M, or where an example has no further neighbour.
"""

from dataclasses import dataclass
from typing import cast

import numpy as np
import numpy.typing as npt

from stages.vectors import Doubles

Places = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Plan:
    """The optimal plan as a rule about distances, which rows that come later can be asked about, too."""

    borders: Doubles
    """(M,) squared distance of the row that each example fills last."""
    edges: Doubles
    """(M,) what a row at the border gets, times rho."""
    inner: float
    """What a row inside the border gets of one example, times rho: t / M."""
    exhausted: bool = False
    """An example ran out of neighbours before the optimum: more of them would spread the mass further."""

    def probabilities(self, squared: Doubles, density: Doubles) -> Doubles:
        """(n,) p_j of rows with squared distances (n, M) and densities (n,): 1 in all over the rows it was made of."""
        inside = (squared < self.borders).sum(axis=1) * self.inner
        at_border = ((squared == self.borders) * self.edges).sum(axis=1)
        return cast(Doubles, (inside + at_border) / density)


def solve(squared: Doubles, radii: Doubles, density: Doubles, alpha: float, scale: float) -> Plan:
    """The plan for rows with squared distances (n, M); example i may use the rows within radii_i, and has one.

    Args:
        squared: squared distances.
        radii: (M,) squared.
        density: (n,) rho >= 1.
        alpha: in [0, 1]: 1 is nearness alone, 0 diversity alone.
        scale: C, of a typical distance.
    """
    examples = squared.shape[1]
    chains = [_Chain.of(squared[:, i], radii[i], density) for i in range(examples)]
    reach = np.concatenate([chain.sums[:-1] for chain in chains])
    growth = np.concatenate([np.diff(chain.slopes(), prepend=0.0) for chain in chains])
    order = np.argsort(reach, kind="stable")
    slopes = np.cumsum(growth[order])
    stops = np.flatnonzero(alpha / scale * slopes >= (1 - alpha) * examples)
    last = min(float(chain.sums[-1]) for chain in chains)
    best = float(reach[order[stops[0]]]) if len(stops) else np.inf
    s = min(best, last)
    borders, edges = zip(*(chain.cut(s, examples) for chain in chains), strict=True)
    return Plan(np.array(borders), np.array(edges), 1 / (examples * s), best > last)


@dataclass(frozen=True)
class _Chain:
    """The neighbours of one example, nearest first."""

    squared: Doubles
    shares: Doubles
    """(k,) 1 / rho."""
    sums: Doubles
    """(k,) S."""

    @classmethod
    def of(cls, squared: Doubles, radius: float, density: Doubles) -> "_Chain":
        near = np.flatnonzero(squared <= radius)
        near = near[np.argsort(squared[near], kind="stable")]
        shares = 1 / density[near]
        return cls(squared[near], shares, np.cumsum(shares))

    def slopes(self) -> Doubles:
        """(k - 1,) h where the first 1, ..., k - 1 neighbours are full."""
        distance = np.sqrt(self.squared)
        return distance[1:] * self.sums[:-1] - np.cumsum(distance * self.shares)[:-1]

    def cut(self, s: float, examples: int) -> tuple[float, float]:
        """The border, and what a row there gets times rho: rows at equal distance share, as rho allows."""
        border = self.squared[int(np.searchsorted(self.sums, s))]
        first, end = np.searchsorted(self.squared, border, "left"), np.searchsorted(self.squared, border, "right")
        full = self.sums[first - 1] if first else 0.0
        return float(border), float(max(1 - full / s, 0.0) / self.shares[first:end].sum() / examples)

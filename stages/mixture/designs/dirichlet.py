"""Dirichlet draws around the prior, as RegMix makes its mixtures (arXiv:2407.01492, section 3 and appendix).

p ~ Dirichlet(s q), q = prior^0.5 / sum: the temperature gives small sources a chance, and strengths s from 0.1 (nearly
one source alone) to 5 (near q), on a log scale. We add the prior itself and the uniform mixture, take one draw per
strength in turn, and give what an upper bound cuts off to the others; RegMix draws again until a draw fits, which does
not end where several bounds are tight.
"""

from typing import Literal

import numpy as np
from pydantic import Field, model_validator

from stages.mixture.designs.design import Design
from stages.mixture.designs.region import Doubles, Region, distinct, noise

STRENGTHS = 15


class Dirichlet(Design):
    """Random mixtures around the prior."""

    kind: Literal["dirichlet"] = "dirichlet"
    least_strength: float = Field(0.1, gt=0)
    most_strength: float = Field(5.0, gt=0)
    temperature: float = Field(0.5, ge=0, le=1)
    """Power of the prior: 1 keeps it, 0 makes it uniform."""

    @model_validator(mode="after")
    def _ordered(self) -> "Dirichlet":
        if self.least_strength > self.most_strength:
            raise ValueError(f"`least_strength` {self.least_strength} is above `most_strength` {self.most_strength}")
        return self

    def mixtures(self, region: Region, count: int, seed: int) -> Doubles:
        """(count, S): prior, uniform, then draws."""
        random = noise(seed, "dirichlet")
        tempered = np.maximum(region.prior, 1e-6) ** self.temperature
        centre = tempered / tempered.sum()
        strengths = np.geomspace(self.least_strength, self.most_strength, STRENGTHS)
        found = region.anchors()
        for _ in range(1000):  # a round adds draws unless the region is a point
            drawn = np.array([_draw(random, centre * strength) for strength in strengths])
            found = distinct(np.vstack([found, region.within(drawn)]))
            if len(found) >= count:
                break
        return found[:count]


def _draw(random: np.random.Generator, alpha: Doubles) -> Doubles:
    """One draw, by logarithms of gamma numbers: small alphas would underflow to 0/0.

    Gamma(a) is Gamma(a + 1) u^(1/a) (Marsaglia and Tsang, 2000).
    """
    logs = np.log(random.standard_gamma(alpha + 1)) + np.log(random.random(len(alpha))) / alpha
    shares = np.exp(logs - logs.max())
    return np.asarray(shares / shares.sum(), np.float64)

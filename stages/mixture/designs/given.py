"""Mixtures that somebody names: to try proposals beside the uniform and the natural mixture at equal budget."""

from collections.abc import Mapping
from typing import Literal

import numpy as np
from pydantic import Field, field_validator

from schemas.errors import CuveeError
from stages.mixture.designs.design import Design
from stages.mixture.designs.region import Doubles, Region

TOLERANCE = 1e-6
"""How far shares may be from adding up to 1: they come rounded."""


class Given(Design):
    """The mixtures in the order in which they are given; a source that a mixture does not name has no share in it."""

    kind: Literal["given"] = "given"
    mixtures_: tuple[Mapping[str, float], ...] = Field(min_length=2, alias="mixtures", serialization_alias="mixtures")
    """Source -> share, per mixture."""

    @field_validator("mixtures_")
    @classmethod
    def _on_the_simplex(cls, mixtures: tuple[Mapping[str, float], ...]) -> tuple[Mapping[str, float], ...]:
        for number, shares in enumerate(mixtures, start=1):
            total = sum(shares.values())
            if min(shares.values(), default=-1.0) < 0 or abs(total - 1) > TOLERANCE:
                raise ValueError(f"mixture {number} has shares {dict(shares)}; expected shares >= 0 that add up to 1")
        return mixtures

    def mixtures(self, region: Region, count: int, seed: int) -> Doubles:
        """(count, S); the seed decides nothing.

        Raises:
            CuveeError: a source that is not there, another number of mixtures than `count`, or one above a bound.
        """
        for shares in self.mixtures_:
            if unknown := sorted(set(shares) - set(region.sources)):
                raise CuveeError(f"design 'given' names source {unknown[0]!r}; there are {', '.join(region.sources)}")
        if count != len(self.mixtures_):
            raise CuveeError(
                f"design 'given' has {len(self.mixtures_)} mixtures and `count` is {count}; let them agree"
            )
        found = np.array([[shares.get(name, 0.0) for name in region.sources] for shares in self.mixtures_])
        found /= found.sum(axis=1, keepdims=True)
        if (above := np.flatnonzero(~region.holds(found))).size:
            largest = dict(zip(region.sources, region.upper.tolist(), strict=True))
            raise CuveeError(
                f"mixture {above[0] + 1} of design 'given' takes more of a source than `max_repeats` allows at the "
                f"largest budget: the largest shares are {largest}"
            )
        return found

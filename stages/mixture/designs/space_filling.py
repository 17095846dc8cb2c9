"""Space-filling design: mixtures as far from each other as can be (maximin; Johnson, Moore and Ylvisaker, 1990).

It begins with the prior; the rest is chosen among corners of the region, their midpoints and points of low
discrepancy, greedily, and then improved by exchanging the closest pair.
"""

from typing import Literal

from schemas.errors import CuveeError
from stages.mixture.designs.candidates import candidates
from stages.mixture.designs.design import Design
from stages.mixture.designs.region import Doubles, Region
from stages.mixture.designs.spread import exchanged, farthest


class SpaceFilling(Design):
    """Mixtures far from each other."""

    kind: Literal["space_filling"] = "space_filling"

    def mixtures(self, region: Region, count: int, seed: int) -> Doubles:
        """(count, S), the prior first.

        Raises:
            CuveeError: the bounds leave fewer mixtures.
        """
        points = candidates(region, seed)
        if len(points) < count:
            raise CuveeError(f"the bounds leave {len(points)} mixtures and {count} are asked for; loosen the bounds")
        return points[exchanged(points, farthest(points, count, 0), fixed=1)]

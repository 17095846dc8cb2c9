"""Designs: which mixtures to try, so that a law fitted to few trials knows the whole simplex."""

from collections.abc import Sequence

from schemas.errors import ContractError, CuveeError
from stages.mixture.designs.d_optimal import DOptimal
from stages.mixture.designs.design import Design
from stages.mixture.designs.dirichlet import Dirichlet
from stages.mixture.designs.given import Given
from stages.mixture.designs.lattice import Lattice
from stages.mixture.designs.region import Doubles, Region, distinct
from stages.mixture.designs.space_filling import SpaceFilling

DESIGNS: dict[str, type[Design]] = {
    "d_optimal": DOptimal,
    "dirichlet": Dirichlet,
    "given": Given,
    "lattice": Lattice,
    "space_filling": SpaceFilling,
}

__all__ = ["DESIGNS", "Design", "Region", "design"]


def design(
    plan: Design | str,
    sources: Sequence[str],
    count: int,
    prior: Doubles,
    seed: int,
    upper: Doubles | None = None,
) -> Doubles:
    """Mixtures to try.

    Args:
        plan: a design, or the kind of one with its default settings.
        sources: S names.
        count: mixtures.
        prior: (S,) shares on the simplex, e.g. the natural ones.
        seed: the same seed gives the same mixtures.
        upper: (S,) largest share of each source; None: no bound.

    Returns:
        (count, S) distinct mixtures, each >= 0, <= upper and of sum 1 within 1e-9.

    Raises:
        CuveeError: an unknown kind, bounds that no mixture meets, or too few mixtures, with the numbers.
    """
    if isinstance(plan, str):
        if plan not in DESIGNS:
            raise CuveeError(f"unknown design {plan!r}; known: {', '.join(sorted(DESIGNS))}")
        plan = DESIGNS[plan](kind=plan)
    region = Region.of(sources, prior, upper)
    if count < (least := plan.least(region.size)):
        raise CuveeError(
            f"design {plan.kind!r} of {region.size} sources needs at least {least} mixtures, found a count of {count}; "
            "raise it, or choose another design" + (" or `model: linear`" if plan.kind == "d_optimal" else "")
        )
    found = plan.mixtures(region, count, seed)
    if len(found) < count:
        raise CuveeError(
            f"design {plan.kind!r} found {len(found)} different mixtures within the bounds, and {count} are asked for; "
            "loosen the bounds, or ask for fewer"
        )
    if len(distinct(found)) != count or not region.holds(found).all():
        raise ContractError(f"design {plan.kind!r} returned a mixture twice, or one outside the bounds")
    return found

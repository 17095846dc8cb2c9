"""Do the experts of a mixture specialise, and do they share the work? (the testbed of arXiv:2604.07030)

From counts C[d, e] of decisions about images of domain d that chose expert e, with D and E as random variables:

    NMI           I(D; E) / min(H(D), H(E)); 0 where the router collapsed, 1 of one expert a domain
    agreement     max over assignments pi of sum_d P(d) P(E = pi(d) | d), minus what permuted domains give
    utilisation   H(E) / ln(number of experts), in [0, 1]
    overload      max_e P(e) times the number of experts, >= 1
    gap closed    (L_dense - L_moe) / (L_dense - L_reference), at equal active parameters and steps

and how much worse a domain becomes when another domain's expert answers for it (the swap cost), which tells experts
that differ from experts that merely divide the work. The paper's own formulas are not public; these are ours.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from schemas.errors import ContractError

if TYPE_CHECKING:
    from collections.abc import Callable

Counts = npt.NDArray[np.int64]
Doubles = npt.NDArray[np.float64]
PERMUTATIONS = 20
"""Behind the agreement by chance."""
DEAD = 0.1
"""An expert is dead below this part of an even share."""


def expert_counts(domains: npt.NDArray[np.integer], routes: npt.NDArray[np.integer], shape: tuple[int, int]) -> Counts:
    """(domains, experts) choices.

    Args:
        domains: (n,) domain of each image.
        routes: (n, ...) experts chosen for it.
        shape: how many domains and experts there are.
    """
    flat = np.broadcast_to(domains.reshape(-1, *[1] * (routes.ndim - 1)), routes.shape) * shape[1] + routes
    return np.bincount(flat.ravel(), minlength=shape[0] * shape[1]).reshape(shape).astype(np.int64)


def normalised_mutual_information(counts: Counts) -> float:
    """In [0, 1]; 0 where there is one domain or one expert."""
    shares = counts / max(1, counts.sum())
    domains, experts = entropy(shares.sum(axis=1)), entropy(shares.sum(axis=0))
    least = min(domains, experts)
    if least <= 0:
        return 0.0
    return float(np.clip((domains + experts - entropy(shares.ravel())) / least, 0.0, 1.0))


def entropy(shares: Doubles) -> float:
    """In nats, of shares that sum to 1."""
    there = shares[shares > 0]
    return float(-(there * np.log(there)).sum())


def assignment(counts: Counts) -> npt.NDArray[np.int64]:
    """(domains,) the expert of each domain, no two alike, that agrees with most choices; -1 where experts run out."""
    from scipy.optimize import linear_sum_assignment

    rows, columns = linear_sum_assignment(counts, maximize=True)
    found = np.full(len(counts), -1, np.int64)
    found[rows] = columns
    return found


def agreement(counts: Counts) -> float:
    """Share of the choices that fell on their domain's expert, in [0, 1]."""
    experts = assignment(counts)
    has = experts >= 0
    return float(counts[has.nonzero()[0], experts[has]].sum() / max(1, counts.sum()))


def chance_agreement(
    domains: npt.NDArray[np.integer],
    routes: npt.NDArray[np.integer],
    shape: tuple[int, int],
    seed: int,
) -> float:
    """Mean agreement where images keep their routes and swap domains; above 1 / E, as pi is chosen after."""
    drawn = np.random.Generator(np.random.Philox(seed))
    shuffled = [agreement(expert_counts(drawn.permutation(domains), routes, shape)) for _ in range(PERMUTATIONS)]
    return float(np.mean(shuffled))


def utilisation(counts: Counts) -> float:
    """In [0, 1]; 0 of a single expert."""
    many = counts.shape[1]
    return entropy(counts.sum(axis=0) / max(1, counts.sum())) / float(np.log(many)) if many > 1 else 0.0


def overload(counts: Counts) -> float:
    """How many times an even share the busiest expert has."""
    return float(counts.sum(axis=0).max() / max(1, counts.sum()) * counts.shape[1])


def dead_experts(counts: Counts) -> int:
    """Experts with less than a tenth of an even share."""
    return int((counts.sum(axis=0) < DEAD / counts.shape[1] * counts.sum()).sum())


def specialisation(
    domains: npt.NDArray[np.integer], routes: npt.NDArray[np.integer], shape: tuple[int, int], seed: int
) -> dict[str, Any]:
    """Everything that is told by choices alone; `counts` is C.

    Args:
        domains: (n,) domain of each image.
        routes: (n, ...) experts chosen for it.
        shape: how many domains and experts there are.
        seed: of the permutations behind `agreement_by_chance`.
    """
    counts = expert_counts(domains, routes, shape)
    agreed, chance = agreement(counts), chance_agreement(domains, routes, shape, seed)
    return {
        "nmi": normalised_mutual_information(counts),
        "agreement": agreed,
        "agreement_by_chance": chance,
        "agreement_above_chance": agreed - chance,
        "utilisation": utilisation(counts),
        "overload": overload(counts),
        "dead_experts": dead_experts(counts),
        "counts": counts.tolist(),
    }


@dataclass(frozen=True)
class GapClosed:
    """How far a router gets from a dense connector to the reference."""

    share: float | None
    """1 where it does as well as the reference; below 0 where it does worse than dense; None where undefined."""
    why_undefined: str | None = None


def gap_closed(dense: float, moe: float, reference: float) -> GapClosed:
    """From three held-out losses."""
    if reference >= dense:
        return GapClosed(None, f"reference {reference:.4g} >= dense {dense:.4g}: the domains reward no specialisation")
    return GapClosed((dense - moe) / (dense - reference))


def swap_costs(
    experts: Sequence[int] | npt.NDArray[np.integer], loss: "Callable[[int, dict[int, int]], float]"
) -> Doubles:
    """(domains, domains) rise of the loss of domain d when the expert of domain d' answers in the place of its own.

    Args:
        experts: (domains,) each one's expert, from `assignment`; -1 where it has none, whose row and column are NaN.
        loss: held-out loss of a domain under a mapping of experts that are replaced to those that replace them, as
            `Experts.replacing` takes it.

    Raises:
        ContractError: two domains have the same expert.
    """
    there = [domain for domain, expert in enumerate(experts) if expert >= 0]
    if len({int(experts[domain]) for domain in there}) < len(there):
        raise ContractError(f"the experts of the domains, {list(experts)}, are not all different")
    costs = np.full((len(experts), len(experts)), np.nan)
    for domain in there:
        own, others = int(experts[domain]), [other for other in there if other != domain]
        swapped = [loss(domain, {own: int(experts[other])}) for other in others]
        costs[domain, others] = np.array(swapped) - loss(domain, {})
        costs[domain, domain] = 0.0
    return costs


def mean_swap_cost(costs: Doubles) -> float:
    """Mean over pairs of different domains that both have an expert; NaN where there are none."""
    off = ~np.eye(len(costs), dtype=bool) & ~np.isnan(costs)
    return float(costs[off].mean()) if off.any() else float("nan")

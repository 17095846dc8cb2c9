"""Whether a trained mixture of experts specialises in the sources of held-out images."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from stages.noise import uniform_noise
from stages.train.metrics.expert_specialisation import assignment, mean_swap_cost, specialisation, swap_costs
from stages.train.metrics.nll import label_counts, sample_losses
from stages.train.samples import Corpus

if TYPE_CHECKING:
    from stages.train.bridge import Bridge
    from stages.train.loop import Frozen

SAMPLES = 128
"""Most samples of a source that are read; every pair of sources is another pass over them."""


def expert_report(
    bridge: "Bridge", frozen: "Frozen", corpus: Corpus, sources: Sequence[str], batch: int, seed: int
) -> dict[str, Any] | str:
    """`nmi`, `agreement`, `utilisation` and so on by source, `swap_costs` in nats per token; or why there are none.

    Args:
        bridge: with a connector that was trained.
        frozen: the models around it.
        corpus: held-out samples.
        sources: (n,) of these.
        batch: samples at a time.
        seed: decides which samples of a large source are read.
    """
    connector: Any = bridge.connector
    if getattr(connector, "router", None) is None:
        return "the connector has no router that was trained"
    parts = _parts(corpus, sources, seed)
    if len(parts) < 2:
        return "the held-out images come from one source, or nobody says from which"
    names = sorted(parts)

    def loss(domain: int, stand_ins: dict[int, int]) -> float:
        mine = parts[names[domain]]
        with connector.replacing(stand_ins):
            losses = sample_losses(bridge, frozen, mine, mine.images, batch)
        return float(losses.sum() / label_counts(mine).sum())

    routes, domains = [], []
    for number, name in enumerate(names):
        images = list(parts[name].images)
        for start in range(0, len(images), batch):
            connector(frozen.embeddings(images[start : start + batch]))
            routes.append(connector.routes.cpu().numpy().copy())
            domains += [number] * len(routes[-1])
    shape = (len(names), len(connector.experts))
    found = specialisation(np.array(domains), np.concatenate(routes), shape, seed)
    costs = swap_costs(assignment(np.array(found["counts"])), loss)
    told = [[None if np.isnan(cost) else float(cost) for cost in row] for row in costs]
    mean = mean_swap_cost(costs)
    return {"sources": names, **found, "swap_costs": told, "swap_cost": None if np.isnan(mean) else mean}


def _parts(corpus: Corpus, sources: Sequence[str], seed: int) -> dict[str, Corpus]:
    """By source, at most `SAMPLES` each, those of the smallest noise."""
    if not sources:
        return {}
    noise, named, taken = uniform_noise(corpus.keys, seed, "expert report"), [""] * len(corpus), dict[str, int]()
    for row in np.argsort(noise, kind="stable").tolist():
        source = sources[row]
        taken[source] = taken.get(source, 0) + 1
        if taken[source] <= SAMPLES:
            named[row] = source
    return {name: part for name, part in corpus.parts(named).items() if name}

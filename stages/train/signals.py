"""What a schedule asks for: losses, excess losses and connector gradients per source, on probe batches.

Only the connector's gradients are needed: one backward pass per source and update. Probe samples of an update follow
from (seed, number of the update) and the keys: they run through each corpus in an order of their own.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from stages.schedule import Schedule, Signals, Wants
from stages.train.sampler import IndexSampler

if TYPE_CHECKING:
    import torch

    from stages.train.batches import Batches
    from stages.train.bridge import Bridge

Doubles = npt.NDArray[np.float64]
COLUMNS = 1 << 20
"""Coordinates of gradients that are multiplied at a time in double precision."""
SMALL = 1e-8
"""Adam's epsilon."""


@dataclass
class Probe:
    """Measures a connector for one schedule."""

    schedule: Schedule
    sources: "Batches"
    targets: "Batches | None"
    seed: str
    reference: "Bridge | None" = None
    _orders: dict[tuple[str, str], IndexSampler] = field(default_factory=dict)

    @cached_property
    def wants(self) -> Wants:
        """What the schedule asks for."""
        return self.schedule.wants()

    @property
    def rows(self) -> "Batches":
        """What the connector should do well on."""
        return self.targets or self.sources

    def measure(
        self, bridge: "Bridge", optimizer: "torch.optim.Optimizer", step: int, rate: float, update: int
    ) -> Signals:
        """Everything the schedule wants to know before update number `update`, from 0; no weight changes."""
        wants = self.wants
        losses = self._losses(bridge) if wants.losses else None
        excess = self._excess(bridge, update) if wants.excess else None
        products, norms = self._gradients(bridge, optimizer, update) if wants.gradients else (None, None)
        return Signals(step, rate, losses, excess, products, norms)

    def _drawn(self, batches: "Batches", purpose: str, update: int) -> list[list[tuple[str, int]]]:
        """Per source the samples of a probe; they are all different until the corpus has been run through."""
        found = []
        for name in batches.names:
            keys = batches.corpora[name].keys
            order = self._orders.setdefault((name, purpose), IndexSampler(keys, 1, f"{self.seed}/{purpose}"))
            count = min(self.schedule.probe, len(keys))
            found.append([(name, order.at(place)) for place in range(update * count, (update + 1) * count)])
        return found

    def _losses(self, bridge: "Bridge") -> Doubles:
        import torch

        with torch.no_grad():
            found = [self.rows.losses(bridge, drawn).values for drawn in self._drawn(self.rows, "fixed probe", 0)]
        return np.array([float(losses.double().mean()) for losses in found])

    def _excess(self, bridge: "Bridge", update: int) -> Doubles:
        import torch

        assert self.reference is not None
        means = []
        with torch.no_grad():
            for drawn in self._drawn(self.sources, "probe", update):
                mine = self.sources.losses(bridge, drawn).values
                theirs = self.sources.losses(self.reference, drawn).values
                means.append(float((mine - theirs).clamp(min=0).double().mean()))
        return np.array(means)

    def _gradients(self, bridge: "Bridge", optimizer: "torch.optim.Optimizer", update: int) -> tuple[Doubles, Doubles]:
        drawn = self._drawn(self.sources, "probe", update)
        sources = rows = [gradient(bridge, self.sources, samples, self.wants.clip) for samples in drawn]
        if self.targets or self.wants.apart:
            drawn = self._drawn(self.rows, "row probe", update)
            rows = [gradient(bridge, self.rows, samples, self.wants.clip) for samples in drawn]
        scale = adam_scale(optimizer, bridge, sources) if self.wants.gradients == "diagonal" else None
        return inner_products(sources, rows, scale), np.sqrt(squares(sources, scale))


def gradient(
    bridge: "Bridge", batches: "Batches", drawn: Sequence[tuple[str, int]], clip: float | None = None
) -> "torch.Tensor":
    """(P,) gradient of the mean loss per label token of some samples, on the CPU, no longer than `clip`."""
    import torch

    losses = batches.losses(bridge, drawn).values
    found = torch.autograd.grad(losses.mean(), list(bridge.parameters()), materialize_grads=True)
    flat = torch.cat([part.detach().flatten() for part in found]).cpu()
    if clip is None:
        return flat
    return flat * min(1.0, clip / (float(flat.double().norm()) + SMALL))


def inner_products(
    left: Sequence["torch.Tensor"], right: Sequence["torch.Tensor"], scale: "torch.Tensor | None" = None
) -> Doubles:
    """(S, R) sum_p left_sp scale_p right_rp of gradients (P,), accumulated in double precision."""
    import torch

    total = torch.zeros(len(left), len(right), dtype=torch.float64)
    for start in range(0, len(left[0]), COLUMNS):
        part = slice(start, start + COLUMNS)
        mine = torch.stack([vector[part].double() for vector in left])
        theirs = torch.stack([vector[part].double() for vector in right])
        total += mine @ (theirs if scale is None else theirs * scale[part].double()).T
    found: Doubles = total.numpy()
    return found


def squares(vectors: Sequence["torch.Tensor"], scale: "torch.Tensor | None" = None) -> Doubles:
    """(S,) squared norms of gradients (P,), each coordinate weighed by `scale`."""
    return np.array([float(inner_products([vector], [vector], scale)[0, 0]) for vector in vectors])


def adam_scale(
    optimizer: "torch.optim.Optimizer", bridge: "Bridge", sources: Sequence["torch.Tensor"]
) -> "torch.Tensor":
    """(P,) 1 / (sqrt(v) + 1e-8), v Adam's corrected second moment: what a step makes of a gradient.

    Before the first step v is the mean of the sources' squared gradients.
    """
    import torch

    states = [optimizer.state.get(parameter, {}) for parameter in bridge.parameters()]
    if not all("exp_avg_sq" in state for state in states):
        moments = torch.stack([vector.square() for vector in sources]).mean(dim=0)
        return 1 / (moments.sqrt() + SMALL)
    beta = optimizer.param_groups[0]["betas"][1]
    parts = [state["exp_avg_sq"].flatten() / (1 - beta ** float(state["step"])) for state in states]
    return 1 / (torch.cat(parts).cpu().sqrt() + SMALL)

"""Domains planted in generated features, and a mixture of experts trained on them: the world of the MoE testbed.

Features of domain d are m_d + z, z ~ N(0, I), m_d of length 3, four to an image; the right token is A_d z, A_d drawn
per domain with variance 1 / width. Domains can be told apart by the features, and an expert that knows one of the maps
is of no use to another. A step is one micro batch of each domain, as batches are where shards are packed by source.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from stages.train.connectors.contract import Grid, connector_of
from stages.train.connectors.moe_mlp.network import Experts
from stages.train.language_model import one_thread
from stages.train.metrics.expert_specialisation import assignment, mean_swap_cost, specialisation, swap_costs

DOMAINS, WIDTH, GRID, APART = 4, 16, Grid(2, 2), 3.0
IMAGES, HELD_OUT = 8, 64
"""Images of a domain per step, and per measurement."""
RATE, BALANCE = 3e-3, 0.1
BY_SOURCE: dict[str, Any] = {"router": "reference", "sources": ["a", "b", "c", "d"]}


@dataclass(frozen=True)
class World:
    """One draw of the domains."""

    places: torch.Tensor
    maps: torch.Tensor

    @classmethod
    def drawn(cls, seed: int) -> "World":
        chance = torch.Generator().manual_seed(1000 + seed)
        directions = torch.randn(DOMAINS, WIDTH, generator=chance)
        maps = torch.randn(DOMAINS, WIDTH, WIDTH, generator=chance) / WIDTH**0.5
        return cls(APART * directions / directions.norm(dim=1, keepdim=True), maps)

    def batch(self, domain: int, images: int, chance: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """Features and the right tokens, (images, 4, WIDTH) each."""
        inner = torch.randn(images, GRID.cells, WIDTH, generator=chance)
        return self.places[domain] + inner, inner @ self.maps[domain]


def trained(world: World, seed: int, steps: int, **settings: Any) -> Experts:
    """The project's connector after `steps` steps of AdamW on the squared error, at a constant rate."""
    told = {"kind": "moe_mlp", "experts": DOMAINS, "hidden": WIDTH, "balance": BALANCE, **settings}
    module = connector_of(told).build(WIDTH, WIDTH, seed, GRID)
    assert isinstance(module, Experts)
    with one_thread():
        _descend(module, world, seed, steps)
    return module.train(False)


def _descend(module: Experts, world: World, seed: int, steps: int) -> None:
    optimizer = torch.optim.AdamW(module.parameters(), lr=RATE, betas=(0.9, 0.95), weight_decay=0.0)
    chance = torch.Generator().manual_seed(seed)
    for step in range(steps):
        module.begin_step()
        optimizer.zero_grad()
        for turn in range(DOMAINS):
            loss = error(module, world, (step + turn) % DOMAINS, IMAGES, chance)
            whole = loss if module.penalty is None else loss + module.penalty
            torch.autograd.backward(whole / DOMAINS)
        optimizer.step()


def error(module: Experts, world: World, domain: int, images: int, chance: torch.Generator) -> torch.Tensor:
    """Mean squared error on new images; 1 is the error of a token of zeros."""
    features, right = world.batch(domain, images, chance)
    loss: torch.Tensor = (module(features, torch.full((images,), domain)) - right).square().mean()
    return loss


def measured(module: Experts, world: World, seed: int) -> dict[str, Any]:
    """Held-out `loss`, what the choices tell, and the mean `swap_cost`; always on the same images."""

    def loss(domain: int, stand_ins: dict[int, int]) -> float:
        held_out = torch.Generator().manual_seed(2000 + DOMAINS * seed + domain)
        with torch.no_grad(), module.replacing(stand_ins):
            return float(error(module, world, domain, HELD_OUT, held_out))

    losses, routes = [], []
    for domain in range(DOMAINS):
        losses.append(loss(domain, {}))
        assert module.routes is not None
        routes.append(module.routes.numpy().copy())
    found: dict[str, Any] = {"loss": float(np.mean(losses))}
    if len(module.experts) < DOMAINS:
        return found
    of = np.repeat(np.arange(DOMAINS), HELD_OUT)
    found |= specialisation(of, np.concatenate(routes), (DOMAINS, len(module.experts)), seed)
    costs = swap_costs(assignment(np.array(found["counts"])), loss)
    return {**found, "swap_cost": mean_swap_cost(costs)}

"""Experts, and what sends a token to them."""

import contextlib
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import torch
from torch import nn

from schemas.errors import ContractError
from stages.train.connectors.moe_mlp import MoeMlp
from stages.train.connectors.moe_mlp.balance_network import LoadBalance

MULTIPLIER = 0x9E3779B97F4A7C15 - (1 << 64)
"""2^64 over the golden ratio, as a signed number: spreads the bits of a hash."""


class Routing(NamedTuple):
    """Which experts answer; one decision a token (d = v) or an image (d = 1)."""

    chosen: torch.Tensor
    """(n, d, k) experts."""
    gates: torch.Tensor
    """(n, d, k) how much each counts."""
    scores: torch.Tensor | None
    """(n, d, experts) of a learned router, summing to 1."""


class Experts(nn.Module):
    """(n, v, vision width) features to (n, v, language width) tokens.

    After a forward, `routes` (n, d, k) says which experts were chosen, and `penalty` is the weighted balance loss, None
    where there is none to add: outside training, of a router that does not learn, or with `scope: none`.
    """

    def __init__(self, settings: MoeMlp, vision: int, language: int) -> None:
        """Experts first, then the router."""
        super().__init__()
        dense = settings.router == "dense"
        wider = settings.top_k if dense else 1
        count = 1 if dense else settings.experts
        self.settings, self.width = settings, language
        self.experts = nn.ModuleList(settings.layers(vision, language, wider) for _ in range(count))
        learned = settings.router == "learned"
        self.router = nn.Sequential(nn.LayerNorm(vision), nn.Linear(vision, count, bias=False)) if learned else None
        self.balance = LoadBalance(settings.scope)
        self._stand_ins: torch.Tensor | None = None
        self.routes: torch.Tensor | None = None
        self.penalty: torch.Tensor | None = None

    def begin_step(self) -> None:
        """Tell it that an optimizer step begins: the forwards from here on are one global batch."""
        self.balance.begin_step()

    @contextlib.contextmanager
    def replacing(self, stand_ins: Mapping[int, int]) -> Iterator[None]:
        """While the block runs, experts (keys) are answered for by others (values); gates stay what they were."""
        numbers = torch.arange(len(self.experts))
        for replaced, stand_in in stand_ins.items():
            numbers[replaced] = stand_in
        before, self._stand_ins = self._stand_ins, numbers
        try:
            yield
        finally:
            self._stand_ins = before

    def forward(self, features: torch.Tensor, sources: torch.Tensor | None = None) -> torch.Tensor:
        """Tokens; `sources` (n,) is each image's place among `settings.sources`, read by the reference router alone."""
        routing = self._routing(features, sources)
        self.routes, self.penalty = routing.chosen.detach(), None
        if routing.scores is not None and self.training and torch.is_grad_enabled():
            self.penalty = self._penalty(routing.chosen, routing.scores)
        if self._stand_ins is not None:
            routing = routing._replace(chosen=self._stand_ins.to(features.device)[routing.chosen])
        per_token = features.shape[1] if self.settings.route == "image" else 1
        chosen, gates = (part.repeat_interleave(per_token, dim=1).flatten(0, 1) for part in routing[:2])
        answers = self._answers(features.flatten(0, 1), chosen, gates)
        return answers.view(*features.shape[:2], answers.shape[1])

    def _penalty(self, chosen: torch.Tensor, scores: torch.Tensor) -> torch.Tensor | None:
        loss = self.balance(chosen, scores)
        return None if loss is None else self.settings.balance * loss

    def _answers(self, rows: torch.Tensor, chosen: torch.Tensor, gates: torch.Tensor) -> torch.Tensor:
        """(r, language width) of rows (r, vision width); an expert without rows gets a gradient of zero, not none."""
        answers = rows.new_zeros(len(rows), self.width)
        for number, expert in enumerate(self.experts):
            row, slot = (chosen == number).nonzero(as_tuple=True)
            answers = answers.index_add(0, row, expert(rows[row]) * gates[row, slot, None])
        return answers

    def _routing(self, features: torch.Tensor, sources: torch.Tensor | None) -> Routing:
        by_image = self.settings.route == "image"
        if self.router is not None:
            scores = self.router(features.mean(dim=1, keepdim=True) if by_image else features).softmax(dim=-1)
            gates, chosen = scores.topk(self.settings.top_k, dim=-1)
            return Routing(chosen, gates, scores)
        decisions = 1 if by_image else features.shape[1]
        chosen = self._told(features, sources).expand(-1, decisions, -1)
        return Routing(chosen, features.new_full(chosen.shape, 1 / chosen.shape[2]), None)

    def _told(self, features: torch.Tensor, sources: torch.Tensor | None) -> torch.Tensor:
        """(n, d or 1, k) experts of a router that does not learn."""
        many, kind = self.settings.top_k, self.settings.router
        if kind == "dense":
            return torch.zeros(len(features), 1, 1, dtype=torch.long, device=features.device)
        if kind == "random":
            return hashed(features, self.settings.experts, many, self.settings.route == "image")
        if sources is None or bool((sources < 0).any()):
            raise ContractError("the reference router needs the source of every image; evaluate source by source")
        return sources[:, None, None] * many + torch.arange(many, device=features.device)


def hashed(features: torch.Tensor, experts: int, many: int, by_image: bool) -> torch.Tensor:
    """(n, v or 1, many) different experts, each as likely, by the bits of a feature alone."""
    bits = features.float().contiguous().view(torch.int32).long()
    odd = 2 * torch.arange(bits.shape[-1], device=bits.device) + 1
    mixed = (bits * (odd * MULTIPLIER)).sum(dim=-1)
    mixed = mixed.sum(dim=1, keepdim=True) if by_image else mixed
    for shift in (32, 29):
        mixed = (mixed ^ (mixed >> shift)) * MULTIPLIER
    first = (mixed >> 40) % experts
    if many == 1:
        return first[..., None]
    second = (first + 1 + (mixed >> 20) % (experts - 1)) % experts
    return torch.stack([first, second], dim=-1)

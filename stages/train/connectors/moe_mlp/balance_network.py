"""The balance loss of a mixture of experts, E sum_i f_i p_i, and over what f is counted (arXiv:2501.11873)."""

from collections.abc import Callable

import torch
from torch import nn


class LoadBalance(nn.Module):
    """Counts choices within its scope; p is always of the forward at hand, through which alone gradients flow."""

    def __init__(self, scope: str) -> None:
        """`sequence`, `micro_batch`, `global_batch` or `none`; without weights."""
        super().__init__()
        self.scope = scope
        self.sum_over_ranks: Callable[[torch.Tensor], torch.Tensor] = lambda counts: counts
        """Adds the (experts,) counts of the workers that share a batch; whoever starts several of them sets it."""
        self.counts: torch.Tensor | None = None
        """Choices of the step so far; None before the first, and where steps are not told."""
        self._steps_are_told = False

    def begin_step(self) -> None:
        """Forget what earlier forwards chose: a global batch begins. Never called, each forward is one."""
        self.counts = None
        self._steps_are_told = True

    def forward(self, chosen: torch.Tensor, scores: torch.Tensor) -> torch.Tensor | None:
        """The loss of choices (n, d, k) under scores (n, d, experts); 1 where choices and scores are even."""
        if self.scope == "none":
            return None
        experts = scores.shape[-1]
        picked = nn.functional.one_hot(chosen, experts).sum(dim=2)
        if self.scope == "sequence":
            shares = picked.float().mean(dim=1) / chosen.shape[2]
            each = experts * (shares * scores.mean(dim=1)).sum(dim=1)
            return each.sum() / max(1, len(each))
        counts = picked.sum(dim=(0, 1))
        if self.scope == "global_batch":
            counts = self._of_the_step(counts)
        mean_scores = scores.sum(dim=(0, 1)) / max(1, scores[..., 0].numel())
        return experts * (counts / counts.sum().clamp(min=1) * mean_scores).sum()

    def _of_the_step(self, counts: torch.Tensor) -> torch.Tensor:
        counts = self.sum_over_ranks(counts)
        if self._steps_are_told:
            counts = self.counts = counts if self.counts is None else self.counts + counts
        return counts

"""The balance loss of a mixture of experts, E sum_i f_i p_i, and over what f is counted (arXiv:2501.11873)."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


class LoadBalance:
    """Counts choices within its scope; p is always of the forward at hand, through which alone gradients flow."""

    def __init__(self, scope: str) -> None:
        """`sequence`, `micro_batch`, `global_batch` or `none`."""
        self.scope = scope
        self.counts: torch.Tensor | None = None
        self._accumulates = False

    def begin_step(self) -> None:
        """Forget what earlier forwards chose: a global batch begins. Without it, each forward is one."""
        self.counts = None
        self._accumulates = True

    def __call__(self, chosen: "torch.Tensor", scores: "torch.Tensor") -> "torch.Tensor | None":
        """The loss of choices (n, d, k) under scores (n, d, experts); 1 where choices and scores are even."""
        import torch

        if self.scope == "none":
            return None
        if not chosen.numel():
            return scores.sum()
        experts = scores.shape[-1]
        picked = torch.nn.functional.one_hot(chosen, experts).sum(dim=2)
        if self.scope == "sequence":
            shares = picked.float().mean(dim=1) / chosen.shape[2]
            return experts * (shares * scores.mean(dim=1)).sum(dim=1).mean()
        counts = picked.sum(dim=(0, 1))
        if self.scope == "global_batch":
            counts = self._global(counts)
        return experts * (counts / counts.sum() * scores.mean(dim=(0, 1))).sum()

    def _global(self, counts: "torch.Tensor") -> "torch.Tensor":
        """(experts,) choices of this step so far, on all workers."""
        import torch

        counts = counts.clone()
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.all_reduce(counts)
        if self._accumulates:
            counts = self.counts = counts if self.counts is None else self.counts + counts
        return counts

"""The prior of groups (y, a) where the attribute is guessed: D[y, a] = 1/N sum_{i: y_i = y} P(a | x_i) (eq. 9-10).

What moves is P(a | y), an average over batches, row by row, so that a class which a batch lacks keeps its row; P(y) is
counted once from the labels, and the loss takes P(y | a) = P(a | y) P(y) / P(a). Averaging the joint table over batches
instead lets the rows of absent classes decay.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

INSIDE_LOG = 1e-4
"""Added to the prior: a group that was never guessed has a bounded margin."""


def updated_prior(
    prior: "torch.Tensor", labels: "torch.Tensor", guessed: "torch.Tensor", momentum: float
) -> "torch.Tensor":
    """(L, K) P(a | y) after a batch; rows sum to 1 where they did before, and those of absent classes stay.

    Args:
        prior: (L, K) before it; uniform rows at first.
        labels: (n,) y of the batch.
        guessed: (n, K) P(a | x), a softmax over the biased branch's logits.
        momentum: what is left of a row after a batch that holds its class, in [0, 1).
    """
    import torch

    counts = torch.bincount(labels, minlength=len(prior))[:, None]
    means = torch.zeros_like(prior).index_add(0, labels, guessed) / counts.clamp(min=1)
    return torch.where(counts > 0, momentum * prior + (1 - momentum) * means, prior)


def log_columns(prior: "torch.Tensor", shares: "torch.Tensor", attributes: "torch.Tensor") -> "torch.Tensor":
    """(n, L) ln(P(y | a) + 1e-4) of attributes (n,), from P(a | y) (L, K) and P(y) (L,)."""
    joint = prior * shares[:, None]
    columns = joint / joint.sum(dim=0, keepdim=True).clamp(min=1e-12)
    return (columns + INSIDE_LOG).log().T[attributes]

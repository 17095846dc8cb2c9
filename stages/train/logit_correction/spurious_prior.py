"""The prior of groups (y, a) where the attribute is guessed: D[y, a] = 1/N sum_{i: y_i = y} P(a | x_i) (eq. 9-10).

What moves is P(a | y), an average over batches, row by row, so that a class which a batch lacks keeps its row; P(y) is
counted once from the labels, and the loss takes P(y | a) = P(a | y) P(y) / P(a). Averaging the joint table over batches
instead lets the rows of absent classes decay.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

INSIDE_LOG = 1e-4
"""Added to the prior: a group that was never guessed has a bounded margin."""


@dataclass
class SpuriousPrior:
    """P(a | y) on its way."""

    given_class: "torch.Tensor"
    """(L, K) rows sum to 1; uniform before the first batch."""
    shares: "torch.Tensor"
    """(L,) P(y), from the training labels."""
    momentum: float
    """What is left of a row after a batch that holds its class, in [0, 1)."""

    @classmethod
    def uniform(cls, labels: "torch.Tensor", classes: int, momentum: float) -> "SpuriousPrior":
        """Before anything was guessed; there are as many attributes as classes."""
        import torch

        shares = torch.bincount(labels, minlength=classes) / len(labels)
        return cls(torch.full((classes, classes), 1 / classes), shares, momentum)

    def update(self, labels: "torch.Tensor", guessed: "torch.Tensor") -> None:
        """Take a batch in: labels (n,), P(a | x) (n, K). Rows of classes that do not occur stay."""
        import torch

        counts = torch.bincount(labels, minlength=len(self.shares))
        there = counts > 0
        sums = torch.zeros_like(self.given_class).index_add(0, labels, guessed)
        means = sums[there] / counts[there, None]
        self.given_class[there] = self.momentum * self.given_class[there] + (1 - self.momentum) * means

    def log_columns(self, attributes: "torch.Tensor") -> "torch.Tensor":
        """(n, L) ln(P(y | a) + 1e-4) of attributes (n,)."""
        joint = self.given_class * self.shares[:, None]
        columns = joint / joint.sum(dim=0, keepdim=True).clamp(min=1e-12)
        log: torch.Tensor = (columns + INSIDE_LOG).log()
        return log.T[attributes]

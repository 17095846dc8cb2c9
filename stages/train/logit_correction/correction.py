"""The corrected cross entropy, and the prior that it takes where the attribute is known (arXiv:2212.01433, eq. 5-6)."""

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from schemas.errors import CuveeError

if TYPE_CHECKING:
    import torch

Doubles = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]


def corrected_losses(logits: "torch.Tensor", labels: "torch.Tensor", log_priors: "torch.Tensor") -> "torch.Tensor":
    """(n,) log sum_y' exp(f_y' + ln D_y') - (f_y + ln D_y), in nats; >= 0.

    A margin in disguise: class y' has to be beaten by ln(D_y' / D_y), so a rare group needs a larger one.

    Args:
        logits: (n, L) f; at inference they are used as they are.
        labels: (n,) y.
        log_priors: (n, L) ln D[:, a] of each sample's attribute; a constant per sample changes nothing.
    """
    import torch

    return torch.nn.functional.cross_entropy(logits + log_priors, labels, reduction="none")


def counted_prior(labels: Integers, attributes: Integers, classes: int, kinds: int, smoothing: float = 1.0) -> Doubles:
    """(L, K) `prior_of_counts` of a training set's labels (n,) and attributes (n,)."""
    counts = np.zeros((classes, kinds))
    np.add.at(counts, (labels, attributes), 1)
    return prior_of_counts(counts, smoothing)


def prior_of_counts(counts: Doubles, smoothing: float) -> Doubles:
    """(L, K) P(y | a) from counts (L, K), (n_ya + c) / (n_a + c L): each column sums to 1.

    P(y, a) would give the same loss: P(a) is a constant of the sample.

    Raises:
        CuveeError: smoothing is not positive, so that the log of an empty cell does not exist.
    """
    if smoothing <= 0:
        raise CuveeError(f"found smoothing {smoothing}, expected more than 0: an empty cell has no log prior")
    prior: Doubles = (counts + smoothing) / (counts.sum(axis=0) + smoothing * len(counts))
    return prior


def group_accuracies(told: Integers, labels: Integers, attributes: Integers) -> dict[tuple[int, int], float]:
    """Share of right answers per group (y, a) that occurs."""
    pairs = sorted(set(zip(labels.tolist(), attributes.tolist(), strict=True)))
    return {(y, a): float((told == y)[(labels == y) & (attributes == a)].mean()) for y, a in pairs}


def group_balanced(accuracies: dict[tuple[int, int], float]) -> float:
    """Mean over groups, each counting the same: what logit correction maximises."""
    return float(np.mean(list(accuracies.values())))

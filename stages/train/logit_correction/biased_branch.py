"""The network that is made to be biased: generalised cross entropy (arXiv:1805.07836), easy samples first."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def gce_losses(logits: "torch.Tensor", labels: "torch.Tensor", q: float) -> "torch.Tensor":
    """(n,) (1 - p_y^q) / q, in [0, 1/q]; q -> 0 is cross entropy, q = 1 is 1 - p_y.

    Its gradient is p_y^q times that of cross entropy: what the network is sure of already weighs most, which is the
    attribute that is learned first.
    """
    told = logits.log_softmax(dim=-1).gather(-1, labels[:, None])[:, 0]
    losses: torch.Tensor = (1 - (q * told).exp()) / q
    return losses

"""Logit correction where the attribute is not known: a biased network guesses it (arXiv:2212.01433, algorithm 1).

    L = L_LC(f(x'), y; D) + strength * GCE(f^(x), y),    a_x = argmax f^(x),    P(a | x) = softmax(f^(x) / temperature)

Only f is used afterwards, without correction. Attributes are as many as classes: a is the class that x looks like.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from schemas.errors import CuveeError
from stages.train.language_model import one_thread
from stages.train.logit_correction.biased_branch import gce_losses
from stages.train.logit_correction.correction import corrected_losses
from stages.train.logit_correction.group_mixup import majority_weights, partners
from stages.train.logit_correction.spurious_prior import log_columns, updated_prior

if TYPE_CHECKING:
    import torch

Integers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class TwoBranch:
    """Settings of a training."""

    steps: int
    batch: int = 256
    learning_rate: float = 1e-3
    biased_rate: float = 1.0
    """Of the biased branch, as a share of `learning_rate`."""
    weight_decay: float = 0.0
    q: float = 0.7
    strength: float = 1.0
    temperature: float = 1.0
    momentum: float = 0.9
    mixup: bool = True
    ramp: float = 0.5
    """Share of the steps over which mixing comes in."""


@dataclass
class LogitCorrection:
    """Two networks on their way."""

    settings: TwoBranch
    features: "torch.Tensor"
    """(n, ...) float32."""
    labels: "torch.Tensor"
    """(n,) int64."""
    network: "torch.nn.Module"
    """f, features to (n, L) logits."""
    biased: "torch.nn.Module"
    """f^, the same."""
    random: np.random.Generator
    classes: int
    prior: "torch.Tensor" = field(init=False)
    """(L, K) P(a | y)."""
    shares: "torch.Tensor" = field(init=False)
    """(L,) P(y)."""
    wrong: npt.NDArray[np.bool_] = field(init=False)
    """(n,) where the biased branch was wrong when it last saw a sample."""

    def __post_init__(self) -> None:
        import torch

        self.prior = torch.full((self.classes, self.classes), 1 / self.classes)
        self.shares = torch.bincount(self.labels, minlength=self.classes) / len(self.labels)
        self.wrong = np.zeros(len(self.labels), np.bool_)

    def losses(self, drawn: Integers, step: int) -> "tuple[torch.Tensor, torch.Tensor]":
        """(b,) corrected losses of f and (b,) losses of f^ of some samples, after the prior has seen them."""
        import torch

        ids = torch.from_numpy(drawn)
        labels, shown = self.labels[ids], self.features[ids]
        biased = self.biased(shown)
        guessed = self._guess(drawn, biased.detach())
        told = (biased.detach() / self.settings.temperature).softmax(dim=-1)
        self.prior = updated_prior(self.prior, labels, told, self.settings.momentum)
        log_priors = log_columns(self.prior, self.shares, guessed)
        if self.settings.mixup:
            shown, log_priors = self._mixed(drawn, shown, log_priors, step)
        return corrected_losses(self.network(shown), labels, log_priors), gce_losses(biased, labels, self.settings.q)

    def _guess(self, drawn: Integers, logits: "torch.Tensor") -> "torch.Tensor":
        guessed = logits.argmax(dim=-1)
        self.wrong[drawn] = (guessed != self.labels[drawn]).numpy()
        return guessed

    def _mixed(
        self, drawn: Integers, shown: "torch.Tensor", log_priors: "torch.Tensor", step: int
    ) -> "tuple[torch.Tensor, torch.Tensor]":
        import torch

        ramp = max(1, round(self.settings.ramp * self.settings.steps))
        other = torch.from_numpy(partners(drawn, self.labels.numpy(), self.wrong, self.random))
        mine = torch.from_numpy(majority_weights(len(drawn), step, ramp, self.random)).float()
        with torch.no_grad():
            theirs = log_columns(self.prior, self.shares, self.biased(self.features[other]).argmax(dim=-1))
        wide = mine.view(-1, *[1] * (shown.dim() - 1))
        mixed = (mine[:, None] * log_priors.exp() + (1 - mine[:, None]) * theirs.exp()).log()
        return wide * shown + (1 - wide) * self.features[other], mixed


def train_two_branch(
    settings: TwoBranch,
    features: "torch.Tensor",
    labels: "torch.Tensor",
    classes: int,
    make: "Callable[[int], torch.nn.Module]",
    seed: int,
) -> "LogitCorrection":
    """Train f and f^ by Adam on one thread; equal seeds give equal bits.

    Args:
        settings: rates, budget and the method's constants.
        features: (n, ...) float32.
        labels: (n,) int64 in [0, classes).
        classes: L.
        make: a network with initial weights from a number.
        seed: of the networks, the order and the mixing.

    Raises:
        CuveeError: fewer samples than a batch.
    """
    import torch

    if len(labels) < settings.batch:
        raise CuveeError(f"found {len(labels)} samples, expected at least a batch of {settings.batch}")
    random = np.random.Generator(np.random.Philox(seed))
    both = LogitCorrection(settings, features, labels, make(2 * seed), make(2 * seed + 1), random, classes)
    rates = [(both.network, 1.0), (both.biased, settings.biased_rate)]
    groups = [{"params": list(net.parameters()), "lr": settings.learning_rate * share} for net, share in rates]
    optimizer = torch.optim.Adam(groups, weight_decay=settings.weight_decay)
    with one_thread():
        for step in range(settings.steps):
            drawn = random.choice(len(labels), settings.batch, replace=False)
            mine, theirs = both.losses(drawn, step)
            optimizer.zero_grad(set_to_none=True)
            torch.autograd.backward(mine.mean() + settings.strength * theirs.mean())
            optimizer.step()
    return both

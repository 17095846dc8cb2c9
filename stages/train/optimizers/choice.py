"""Which optimizer trains a connector."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from stages.train.optimizers.stable_adamw import stable_adamw

if TYPE_CHECKING:
    import torch

    from stages.train.settings import TrainSettings


def optimizer_of(settings: "TrainSettings", parameters: "Iterable[torch.nn.Parameter]") -> "torch.optim.Optimizer":
    """The optimizer of a run; its rate is set before every step."""
    import torch

    rate, betas, decay = settings.learning_rate, settings.betas, settings.weight_decay
    if settings.optimizer == "stable_adamw":
        return stable_adamw(parameters, rate, betas, decay)
    return torch.optim.AdamW(parameters, lr=rate, betas=betas, weight_decay=decay)

"""What goes wrong in training, by whose fault: losses that jump, and gradients that surprise the optimizer.

A loss is a spike where it exceeds the median of the last 64 by more than 7 times their median absolute deviation. The
samples of such a step are named with their shards, those of the highest loss first. StableAdamW's RMS (Wortsman et al.,
arXiv:2304.13013) above 2.3 in two steps in a row says that a spike is to be expected.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

Doubles = npt.NDArray[np.float64]
WINDOW, DEVIATIONS = 64, 7.0
NAMED = 16
"""Most samples named for a spike."""
KEPT = 100
"""Most spikes, and most alarms, that are kept; all are counted."""
SURPRISE = 2.3
"""RMS of an alarm."""


@dataclass
class Watch:
    """Looks at every step; its state is plain JSON, so that a resumed run sees what an uninterrupted one would."""

    losses: list[float] = field(default_factory=list)
    """The last ones, at most `WINDOW`."""
    spikes: list[dict[str, Any]] = field(default_factory=list)
    spiked: int = 0
    surprised: list[str] = field(default_factory=list)
    """Tensors above `SURPRISE` in the step before."""
    alarms: list[dict[str, Any]] = field(default_factory=list)
    alarmed: int = 0
    highest: dict[str, float] = field(default_factory=dict)
    """Per tensor, its largest RMS."""

    def is_spike(self, loss: float) -> bool:
        """Whether a loss stands out from those before it."""
        if len(self.losses) < WINDOW:
            return False
        middle = float(np.median(self.losses))
        return loss > middle + DEVIATIONS * float(np.median(np.abs(np.array(self.losses) - middle)))

    def see(self, step: int, loss: float, samples: Callable[[], Sequence[Mapping[str, Any]]], each: Doubles) -> None:
        """Take a step's loss in.

        Args:
            step: steps done before it.
            loss: mean of the step.
            samples: gives (n,) source, key and shard of each sample.
            each: (n,) mean loss of each sample.
        """
        if self.is_spike(loss):
            self.spiked += 1
            worst = np.argsort(-each, kind="stable")[:NAMED]
            told = samples()
            named = [{**told[i], "loss": float(each[i])} for i in worst]
            facts = {"step": step, "loss": loss, "median": float(np.median(self.losses)), "samples": named}
            self.spikes = [*self.spikes, facts][:KEPT]
        self.losses = [*self.losses, loss][-WINDOW:]

    def surprise(self, step: int, rms: Mapping[str, float]) -> None:
        """Take the RMS of each tensor in."""
        above = [name for name, value in rms.items() if value > SURPRISE]
        for name in (name for name in above if name in self.surprised):
            self.alarmed += 1
            self.alarms = [*self.alarms, {"step": step, "tensor": name, "rms": rms[name]}][:KEPT]
        self.surprised = above
        self.highest = {name: max(value, self.highest.get(name, 0.0)) for name, value in rms.items()}

    @property
    def facts(self) -> dict[str, Any]:
        """For the record."""
        found: dict[str, Any] = {"spikes": self.spiked, "spiked": self.spikes}
        if self.highest:
            found |= {"highest_rms": self.highest, "rms_alarms": self.alarmed, "rms_alarmed": self.alarms}
        return found

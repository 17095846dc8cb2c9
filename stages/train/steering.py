"""Which weights the next batch is drawn by: fixed ones, or those of a schedule that is told what is measured."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from schemas.errors import CuveeError
from stages.schedule import Course, Path, Schedule
from stages.train.batches import Batches
from stages.train.sampler import unit_shares
from stages.train.signals import Probe

if TYPE_CHECKING:
    import torch

    from stages.train.bridge import Bridge

Doubles = npt.NDArray[np.float64]


class Fixed:
    """The same weights for every batch."""

    def __init__(self, weights: Doubles, sources: int) -> None:
        self.weights = weights
        self.identity: Any = unit_shares(weights, sources)
        self.state: dict[str, Any] = {}
        self.updates: tuple[dict[str, Any], ...] = ()

    def before(self, bridge: "Bridge", optimizer: "torch.optim.Optimizer", step: int, rate: float) -> Doubles:
        """(S,) weights of the step to come."""
        return self.weights

    def resume(self, state: Mapping[str, Any]) -> None:
        """There is nothing to go on from."""

    @property
    def final(self) -> Doubles:
        """(S,) the weights."""
        return self.weights


@dataclass
class Steered:
    """The weights of a schedule on its way."""

    schedule: Schedule
    course: Course
    probe: Probe
    path: Path

    @classmethod
    def start(
        cls,
        schedule: Schedule,
        sources: Batches,
        targets: Batches | None,
        steps: int,
        seed: str,
        reference: "Bridge | None",
    ) -> "Steered":
        """A schedule before its first step."""
        course = Course(sources.names, targets.names if targets else (), sources.natural, steps, seed)
        probe = Probe(schedule, sources, targets, seed, reference)
        return cls(schedule, course, probe, Path(schedule.start(course)))

    @property
    def identity(self) -> Any:
        """What the weights follow from, beside the samples that are drawn."""
        targets = self.probe.targets.fingerprint if self.probe.targets else None
        settings = self.schedule.model_dump(mode="json")
        return {**settings, "version": self.schedule.version, "targets": targets}

    def before(self, bridge: "Bridge", optimizer: "torch.optim.Optimizer", step: int, rate: float) -> Doubles:
        """(S,) weights of the step to come; where an update is due, they are asked for."""
        if step >= self.path.state["next"]:
            signals = self.probe.measure(bridge, optimizer, step, rate, len(self.path.updates))
            self._refuse_infinite(signals.record(), step)
            self.schedule.update(self.path, signals, self.course)
        return self.path.weights

    def _refuse_infinite(self, measured: dict[str, Any], step: int) -> None:
        for name, values in measured.items():
            if not np.isfinite(values).all():
                raise CuveeError(
                    f"schedule {self.schedule.kind!r} was told {name} = {values} at step {step}; "
                    "lower `learning_rate`, or look at the samples"
                )

    @property
    def state(self) -> dict[str, Any]:
        """Plain JSON to go on from."""
        return {"state": self.path.state, "updates": self.path.updates}

    def resume(self, state: Mapping[str, Any]) -> None:
        """Go on from a state."""
        self.path = Path(state["state"], list(state["updates"]))

    @property
    def updates(self) -> tuple[dict[str, Any], ...]:
        """What was measured and answered, update by update."""
        return tuple(self.path.updates)

    @property
    def final(self) -> Doubles:
        """(S,) what the schedule recommends for a run of fixed weights."""
        return self.schedule.final(self.path.state)

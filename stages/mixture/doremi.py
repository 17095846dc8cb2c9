"""DoReMi: more of the source whose excess loss over a reference is largest (Xie et al., arXiv:2305.10429, algorithm 1).

    log a_i += eta * mean over label tokens of max(loss - reference's loss, 0),   a <- softmax(log a)
    a <- (1 - eps) a + eps / k

The reference is a connector trained before on a fixed mixture. The original draws sources evenly and weighs their
losses by a; here a decides how many samples are drawn, which is the same in expectation, but for sources whose captions
are longer. The recommended mixture is the mean of a over all updates. There is no target: the method guards the worst
source. What cannot be learned has less excess than what can, but not none: every token counts where it is above.
"""

from typing import Literal

from pydantic import Field

from schemas.errors import ContractError
from stages.schedule import Course, Rhythm, Schedule, Signals, State, Wants, exponentiated
from stages.scheduled_mixer import ScheduledMixer


class DoReMiSettings(Rhythm):
    """What the schedule and the mixer share."""

    eta: float = Field(1.0, gt=0)
    """Step size, in 1 / nats."""
    smoothing: float = Field(1e-4, ge=0, lt=1)
    """Share that is spread evenly: eps."""
    reference: Literal["uniform", "natural"] = "uniform"
    """The mixture of the reference connector, and of the first batch."""


class DoReMi(DoReMiSettings, Schedule):
    """Group distributionally robust weights: exponentiated gradient ascent on clipped excess losses."""

    kind: Literal["doremi"] = "doremi"

    def wants(self) -> Wants:
        """Excess losses."""
        return Wants(excess=self.reference)

    def start(self, course: Course) -> State:
        """The reference's mixture."""
        return self.state(course.start(self.reference), first=0)

    def answer(self, state: State, signals: Signals, course: Course) -> State:
        """One step of exponentiated gradient ascent."""
        if signals.excess is None:
            raise ContractError("doremi was told no excess losses")
        weights = exponentiated(state["weights"], self.eta * signals.excess, self.smoothing)
        return self.moved(state, weights, signals.step, course)


class DoReMiMixer(DoReMiSettings, ScheduledMixer):
    """Fixed weights for the export: the mean of DoReMi's on a proxy connector."""

    kind: Literal["doremi"] = "doremi"

    def schedule(self) -> Schedule:
        """What the proxy is trained by."""
        return DoReMi.model_validate(self.shared(DoReMi))

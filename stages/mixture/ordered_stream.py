"""Sources one after another, as new data arrives, with replay of those that came before (arXiv:2408.14471).

In its phase a source takes 1 - replay of every batch, and the sources before it share the rest in proportion to their
samples; the first one has nothing to replay. It asks the trainer for nothing.
"""

from typing import Literal

import numpy as np
from pydantic import Field

from schemas.errors import CuveeError
from stages.schedule import Course, Doubles, Schedule, Signals, State, Wants, weights_of


class OrderedStream(Schedule):
    """A stream of sources in a given order."""

    kind: Literal["ordered_stream"] = "ordered_stream"
    order: tuple[str, ...] = Field(min_length=1)
    """Every source once, the first first."""
    replay: float = Field(0.25, ge=0, lt=1)
    """Share of every batch that comes from the sources before."""

    def wants(self) -> Wants:
        """Nothing."""
        return Wants()

    def start(self, course: Course) -> State:
        """The first source.

        Raises:
            CuveeError: an order that is not one of the sources.
        """
        if sorted(self.order) != sorted(course.sources):
            raise CuveeError(
                f"ordered_stream names {', '.join(self.order)}; expected each of {', '.join(course.sources)} once"
            )
        if len(self.order) > course.steps:
            raise CuveeError(f"ordered_stream has {len(self.order)} sources and {course.steps} steps; train longer")
        return self.state(self._shares(0, course), first=self._begin(1, course), phase=0)

    def answer(self, state: State, signals: Signals, course: Course) -> State:
        """The next source."""
        phase = state["phase"] + 1
        moved = self.moved(state, self._shares(phase, course), signals.step, course, phase=phase)
        return {**moved, "next": self._begin(phase + 1, course)}

    def final(self, state: State) -> Doubles:
        """(S,) the weights of the phase it is in."""
        return weights_of(state)

    def _begin(self, phase: int, course: Course) -> int:
        """First step of a phase; phases are equally long but for rounding. After the last one none is due."""
        return phase * course.steps // len(self.order) if phase < len(self.order) else course.steps + 1

    def _shares(self, phase: int, course: Course) -> Doubles:
        before = np.array([name in self.order[:phase] for name in course.sources])
        now = np.array([name == self.order[phase] for name in course.sources], np.float64)
        if not phase:
            return now
        old = np.where(before, course.natural, 0.0)
        shares: Doubles = (1 - self.replay) * now + self.replay * old / old.sum()
        return shares

"""Two phases, the baseline of every schedule: the large sources first, in natural shares, then the mixture.

It asks the trainer for nothing. A source is large where its share of all samples is at least an equal share, or where
it is named.
"""

from typing import Literal

import numpy as np
from pydantic import Field

from schemas.errors import CuveeError
from stages.schedule import Course, Doubles, Schedule, Signals, State, Wants, on_simplex, weights_of


class TwoPhase(Schedule):
    """Large sources, then the mixture."""

    kind: Literal["two_phase"] = "two_phase"
    first: float = Field(0.5, gt=0, lt=1)
    """Share of the steps that the first phase takes."""
    large: tuple[str, ...] = ()
    """Sources of the first phase; default: those with at least an equal share of the samples."""
    mixture: Literal["uniform", "natural"] | dict[str, float] = "uniform"
    """Shares of the second phase; sources that are not named get 0."""

    def wants(self) -> Wants:
        """Nothing."""
        return Wants()

    def start(self, course: Course) -> State:
        """The first phase.

        Raises:
            CuveeError: a setting that names no source, or shares that do not sum to 1.
        """
        self._mixture(course)
        large = [self._is_large(name, course) for name in course.sources]
        self._refuse(self.large, course)
        shares = np.where(large, course.natural, 0.0)
        return self.state(shares / shares.sum(), first=max(1, round(self.first * course.steps)))

    def answer(self, state: State, signals: Signals, course: Course) -> State:
        """The second phase; there is no third."""
        moved = self.moved(state, self._mixture(course), signals.step, course)
        return {**moved, "next": max(course.steps, signals.step + 1)}

    def final(self, state: State) -> Doubles:
        """(S,) the weights of the phase it is in."""
        return weights_of(state)

    def _is_large(self, name: str, course: Course) -> bool:
        if self.large:
            return name in self.large
        return bool(course.natural[course.sources.index(name)] * len(course.sources) >= 1 - 1e-9)

    def _mixture(self, course: Course) -> Doubles:
        if isinstance(self.mixture, str):
            return course.start(self.mixture)
        self._refuse(tuple(self.mixture), course)
        shares = np.array([self.mixture.get(name, 0.0) for name in course.sources])
        if (shares < 0).any() or abs(float(shares.sum()) - 1) > 1e-6:
            raise CuveeError(f"the mixture of two_phase is {self.mixture}; expected shares >= 0 that sum to 1")
        return on_simplex(shares / shares.sum())

    def _refuse(self, named: tuple[str, ...], course: Course) -> None:
        if unknown := sorted(set(named) - set(course.sources)):
            raise CuveeError(f"two_phase names source {unknown[0]!r}; sources are {', '.join(course.sources)}")

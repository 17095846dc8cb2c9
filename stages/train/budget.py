"""How long to train, and how much of that a run has used: the rate of learning is a function of it, never of a clock.

A budget counts whole steps (as steps, samples or epochs), tokens, or reference system time: the seconds that the steps
take on one reference machine, whichever machine runs them (Kaddour et al., arXiv:2307.06440). A run that is resumed, or
is slower, ends where any other does. Amounts are integers: steps, tokens, or nanoseconds.
"""

from dataclasses import dataclass
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, model_validator

CURVE_POINTS = 100
"""Most points of a loss curve."""
NANOSECONDS = 10**9


class Budget(BaseModel):
    """How long to train, in one unit; every arm gets the same."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    samples: int | None = Field(None, gt=0)
    """Drawn, repeats counted; rounded up to whole batches."""
    steps: int | None = Field(None, gt=0)
    """Of the optimizer."""
    epochs: Annotated[float, Field(gt=0)] | None = None
    """Times that the curated samples are gone through."""
    tokens: int | None = Field(None, gt=0)
    """Visual and text tokens that the language model reads in training, padding left out."""
    reference_seconds: Annotated[float, Field(gt=0)] | None = None
    """Time that the steps take on the reference machine, by the table that `reference_table` names."""

    @model_validator(mode="after")
    def _one_unit(self) -> "Budget":
        if len(self.model_fields_set & {name for name, value in self if value is not None}) != 1:
            raise ValueError(f"name exactly one of {', '.join(f'`{name}`' for name in type(self).model_fields)}")
        return self

    @property
    def is_whole_steps(self) -> bool:
        """Whether it is known before the first step how many there will be."""
        return self.tokens is None and self.reference_seconds is None


@dataclass(frozen=True)
class Stand:
    """Where one step stands in its run's budget, in the budget's units."""

    begun: int
    """Used before the step."""
    cost: int
    """Of the step."""
    total: int

    @property
    def is_last(self) -> bool:
        """Whether the budget is used up behind it."""
        return self.begun + self.cost >= self.total

    def marks(self, points: int) -> bool:
        """Whether a record of about so many points gets one behind it: at equal distances, and at the end."""
        apart = -(-self.total // points)
        return self.is_last or (self.begun + self.cost) // apart > self.begun // apart


@dataclass(frozen=True)
class Meter:
    """What a run has, and what its steps cost."""

    total: int
    reference: int | None = None
    """Nanoseconds of a step on the reference machine, where that is the unit."""
    by_tokens: bool = False

    @classmethod
    def of(cls, budget: Budget, steps: int | None, step_seconds: float | None) -> "Meter":
        """The meter of a budget.

        Args:
            budget: in any unit but epochs.
            steps: how many steps it is, where that is known.
            step_seconds: of a step on the reference machine, where that is the unit.
        """
        if budget.tokens is not None:
            return cls(budget.tokens, by_tokens=True)
        if budget.reference_seconds is not None:
            assert step_seconds is not None
            return cls(round(budget.reference_seconds * NANOSECONDS), max(1, round(step_seconds * NANOSECONDS)))
        assert steps is not None
        return cls(steps)

    def stand(self, used: int, tokens: int) -> Stand:
        """Where a step of so many visual and text tokens stands, behind what was used."""
        cost = tokens if self.by_tokens else self.reference or 1
        return Stand(used, cost, self.total)

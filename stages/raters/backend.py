"""What every rater offers, whatever runs the model."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from pydantic import BaseModel, ConfigDict

from schemas.errors import ContractError
from stages.generation import Generation
from stages.raters.rubric import Question

UNPARSEABLE = "unparseable_score"
"""The model was asked and its answer is none: prose, or a number outside the scale."""
OVERFLOW = "model_overflow"
"""The model's numbers are none: a sum went beyond its number format."""


@dataclass(frozen=True)
class RaterSample:
    """What is rated."""

    image: bytes | None
    """The image file; None rates the caption alone."""
    caption: str


@dataclass(frozen=True)
class Answer:
    """One answer to one question: a number on its scale, one of its labels, or why there is none."""

    value: float | str | None
    reason: str | None = None
    """A reason code where `value` is None: `unparseable_score`, or one of `stages.pixels.decode` for the image."""


class Rater(Protocol):
    """A model that is ready to be asked."""

    def rate(self, samples: Sequence[RaterSample], questions: Sequence[Question]) -> list[list[Answer]]:
        """Per sample, one answer per question, in both orders given."""


class BackendSettings(BaseModel):
    """What runs the model: the `backend:` of a stage, told apart by its `kind`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: str

    def open(self) -> Rater:
        """Load or connect; called once per worker."""
        raise ContractError(f"{type(self).__name__} does not implement open()")

    def identity(self) -> dict[str, object]:
        """What answers depend on beside samples and questions, with models by content; part of the scores' address."""
        raise ContractError(f"{type(self).__name__} does not implement identity()")

    def check(self) -> None:
        """Refuse what cannot work before anything starts.

        Raises:
            RecipeError: with what was found, what was expected and what to do.
        """

    def generation(self) -> Generation | None:
        """The model that the engine is to run for it; None where it has its own."""
        return None

    @property
    def local(self) -> bool:
        """Whether it uses this machine's GPU, if there is one."""
        return False

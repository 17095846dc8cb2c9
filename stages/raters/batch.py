"""A batch of rows through a rater: answers and reasons, row for row."""

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa

from schemas.columns import CAPTION, IMAGE
from stages.missing import no_pair
from stages.quality.caption_safety.assistant_talk import asks_raters
from stages.quality.caption_safety.plain import plain
from stages.raters.backend import UNPARSEABLE, Answer, Rater, RaterSample
from stages.raters.prompt import CAPTION_CHARACTERS
from stages.raters.rubric import Question

ASKS = "asks_for_a_score"
"""The caption says what a rater is to answer: no fence keeps a model from obeying, so none is asked."""


@dataclass(frozen=True)
class Rated:
    """The answers about one row; none where it could not be asked about."""

    answers: tuple[Answer, ...] = ()
    unasked: str | None = None
    """Why nothing was asked."""

    @property
    def reason(self) -> str | None:
        """Why a value is missing: the first reason there is."""
        return self.unasked or next((answer.reason for answer in self.answers if answer.value is None), None)

    @property
    def invalid(self) -> int | None:
        """How many answers were none; None where the model was not asked at all."""
        invalid = sum(answer.reason == UNPARSEABLE for answer in self.answers)
        return invalid if invalid or (self.answers and self.reason is None) else None

    def value(self, number: int) -> float | str | None:
        """The answer to a question."""
        return self.answers[number].value if self.answers else None


def rate_batch(rater: Rater, batch: pa.RecordBatch, questions: Sequence[Question]) -> list[Rated]:
    """Ask about every row that has an image, and a caption that does not speak to the rater."""
    rows = list(zip(batch[IMAGE.name].to_pylist(), batch[CAPTION.name].to_pylist(), strict=True))
    unasked = [no_pair(image, caption) or _asks(caption) for image, caption in rows]
    asked = [RaterSample(*row) for row, reason in zip(rows, unasked, strict=True) if reason is None]
    answers = iter(rater.rate(asked, questions) if asked else [])
    return [Rated(unasked=reason) if reason else Rated(tuple(next(answers))) for reason in unasked]


def _asks(caption: str) -> str | None:
    return ASKS if asks_raters(plain(caption[:CAPTION_CHARACTERS])) else None

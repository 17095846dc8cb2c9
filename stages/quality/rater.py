"""A rater by rubric: any criteria and a domain label, after DataMan (arXiv:2502.19363), by any backend.

DataMan fine-tunes a small annotator on fourteen criteria (1 to 5) and fifteen domains; `rubric: dataman` asks any model
the like. Levels are expectations, so that a threshold can lie between two of them.
"""

from typing import ClassVar, Literal

import pyarrow as pa
from pydantic import Field

from schemas.columns import CAPTION, IMAGE, named_column
from schemas.errors import RecipeError
from stages.file_identity import Located
from stages.generation import Generation
from stages.raters.backends import Backend
from stages.raters.batch import rate_batch
from stages.raters.rubric import Question, Rubric, load_rubric
from stages.stage import Scorer, Stage

OURS = frozenset({"invalid", "reason"})
"""How columns beside those of questions end."""


class RubricRater(Stage):
    """One column per question, `<column>_<question>`, and `<column>_invalid`: how many answers were none."""

    version: ClassVar[int] = 3
    kind: Literal["rater"] = "rater"
    rubric: Located
    """`dataman`, `mlm_filter`, or the path of a YAML file with `questions:`."""
    backend: Backend
    """What runs the model."""
    column: str = Field("rater", pattern=r"^[a-z][a-z0-9_]*$")
    """How its columns begin; tells several raters of one recipe apart."""

    batch_rows: ClassVar[int] = 64
    reads: ClassVar[tuple[pa.Field, ...]] = (IMAGE, CAPTION)

    @property
    def name(self) -> str:
        """Its kind, and how its columns begin where that is chosen."""
        return self.kind if self.column == "rater" else f"{self.kind}_{self.column}"

    @property
    def writes(self) -> tuple[pa.Field, ...]:  # type: ignore[override]
        """A column per question of the rubric, then the count of answers that were none."""
        questions = self._rubric().questions
        invalid = named_column(
            f"{self.column}_invalid", pa.int32(), "questions that got no answer", low=0, high=len(questions)
        )
        return (*(self._column(question) for question in questions), invalid)

    @property
    def uses_gpu(self) -> bool:  # type: ignore[override]
        """Where the model runs on a GPU of the worker."""
        return self.backend.local

    def generation(self) -> Generation | None:
        """The model that the engine runs, with a backend that leaves it to the engine."""
        return self.backend.generation()

    def check(self) -> None:
        """Refuse a rubric that cannot be asked, or a backend that cannot work.

        Raises:
            RecipeError: a question has the name of a column that is written beside the questions.
        """
        taken = {question.name for question in self._rubric().questions} & OURS
        if taken:
            raise RecipeError(f"rubric {self.rubric!r} has a question {min(taken)!r}; that name is the stage's own")
        self.backend.check()

    def identity(self) -> dict[str, object]:
        """The backend's identity and the questions as they stand, wherever the rubric lies."""
        return {
            "backend": self.backend.identity(),
            "rubric": self._rubric().model_dump(mode="json"),
            "column": self.column,
        }

    def open(self) -> Scorer:
        """Load the model, or connect to it."""
        rater, questions, schema = self.backend.open(), self._rubric().questions, self.returns()

        def score(batch: pa.RecordBatch) -> pa.RecordBatch:
            rows = rate_batch(rater, batch, questions)
            values = [[row.value(number) for row in rows] for number in range(len(questions))]
            values += [[row.invalid for row in rows], [row.reason for row in rows]]
            columns = [pa.array(column, field.type) for column, field in zip(values, schema, strict=True)]
            return pa.record_batch(columns, schema)

        return score

    def _rubric(self) -> Rubric:
        return load_rubric(self.rubric)

    def _column(self, question: Question) -> pa.Field:
        name = f"{self.column}_{question.name}"
        if question.labels:
            return named_column(name, pa.string(), f"one of {', '.join(question.labels)}")
        meaning = f"{question.name.replace('_', ' ')}, as a model rates it"
        return named_column(name, pa.float32(), meaning, low=question.low, high=question.high)

"""MLM-Filter: a multimodal language model rates image and caption (arXiv:2403.02677), here with one encoding for all.

Four metrics, one question each, 0 to 100. Ours differs from the released scorer in what a score is: the expectation
over all its integers under the model's own probabilities, so that scores are fine-grained, never cut ("10" for 100),
and what is no answer is told. The questions are in our own words: thresholds published for its models do not carry
over; take quantiles (`top_fraction`).
"""

from typing import ClassVar, Literal

import pyarrow as pa

from schemas.columns import (
    CAPTION,
    IMAGE,
    MLM_CAPTION_QUALITY,
    MLM_IMAGE_TEXT_MATCHING,
    MLM_INVALID,
    MLM_OBJECT_DETAIL,
    MLM_SEMANTIC_UNDERSTANDING,
)
from stages.generation import Generation
from stages.raters.backends import Backend
from stages.raters.batch import rate_batch
from stages.raters.rubric import load_rubric
from stages.stage import Scorer, Stage


class MlmFilter(Stage):
    """Four scores, and how many of the four answers were none.

    A row with an answer that is none keeps the others, beside the reason `unparseable_score`.
    """

    version: ClassVar[int] = 3
    kind: Literal["mlm_filter"] = "mlm_filter"
    backend: Backend
    """What runs the model."""

    reads: ClassVar[tuple[pa.Field, ...]] = (IMAGE, CAPTION)
    writes: ClassVar[tuple[pa.Field, ...]] = (
        MLM_IMAGE_TEXT_MATCHING,
        MLM_OBJECT_DETAIL,
        MLM_CAPTION_QUALITY,
        MLM_SEMANTIC_UNDERSTANDING,
        MLM_INVALID,
    )
    batch_rows: ClassVar[int] = 64

    @property
    def uses_gpu(self) -> bool:  # type: ignore[override]
        """Where the model runs on a GPU of the worker."""
        return self.backend.local

    def generation(self) -> Generation | None:
        """The model that the engine runs, with a backend that leaves it to the engine."""
        return self.backend.generation()

    def check(self) -> None:
        """Refuse a backend that cannot work."""
        self.backend.check()

    def identity(self) -> dict[str, object]:
        """The backend's identity and the questions as they stand."""
        return {"backend": self.backend.identity(), "rubric": load_rubric(self.kind).model_dump(mode="json")}

    def open(self) -> Scorer:
        """Load the model, or connect to it."""
        rater, questions = self.backend.open(), load_rubric(self.kind).questions

        def score(batch: pa.RecordBatch) -> pa.RecordBatch:
            rows = rate_batch(rater, batch, questions)
            scores = [pa.array([row.value(n) for row in rows], pa.float32()) for n in range(len(questions))]
            invalid = pa.array([row.invalid for row in rows], MLM_INVALID.type)
            reasons = pa.array([row.reason for row in rows], pa.string())
            return pa.record_batch([*scores, invalid, reasons], self.returns())

        return score

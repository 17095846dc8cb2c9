"""How much of a caption its image explains, after one captioning model (visual dependence of CAL, arXiv:2405.17871).

A mismatched caption is no likelier with its image than without; boilerplate is likely either way. Both have a visual
dependence near zero or below, however fluent they are. Unlike CAL we take log-probabilities for the score (a logit may
be shifted without changing the model) and do not clamp, since below zero the image speaks against the caption; CAL's
own clamped weight is a column of its own. Losses with and without the image are MiniPLM's difference score
(arXiv:2410.17215) with the image as the teacher's advantage.
"""

from typing import Annotated, ClassVar, Literal

import pyarrow as pa
from pydantic import Field

from schemas.columns import (
    CAL_WEIGHT,
    CAPTION,
    CAPTION_NLL_IMAGE,
    CAPTION_NLL_TEXT,
    CAPTION_PMI,
    CAPTION_TOKENS,
    IMAGE,
    VISUAL_DEPENDENCE,
)
from stages.captioners.connector_captioner import ConnectorCaptioner
from stages.captioners.likelihood import TokenScores
from stages.captioners.multimodal_captioner import MultimodalCaptioner
from stages.missing import no_pair
from stages.raters.backend import OVERFLOW
from stages.stage import Scorer, Stage


class CaptionLikelihood(Stage):
    """Losses per token with the image and without, their difference, its sum, CAL's weight, and the tokens counted.

    The end of the caption is not counted. A caption of more than the model's `max_tokens` counts up to there.
    """

    kind: Literal["caption_likelihood"] = "caption_likelihood"
    captioner: Annotated[MultimodalCaptioner | ConnectorCaptioner, Field(discriminator="kind")]
    """`{kind: transformers, model: DIR}`, or `{kind: connector, ...}` for a connector that a run trained."""

    reads: ClassVar[tuple[pa.Field, ...]] = (IMAGE, CAPTION)
    writes: ClassVar[tuple[pa.Field, ...]] = (
        CAPTION_NLL_IMAGE,
        CAPTION_NLL_TEXT,
        VISUAL_DEPENDENCE,
        CAPTION_PMI,
        CAL_WEIGHT,
        CAPTION_TOKENS,
    )
    batch_rows: ClassVar[int] = 64

    @property
    def uses_gpu(self) -> bool:  # type: ignore[override]
        """Where the captioner is to run on one."""
        return self.captioner.device == "cuda"

    def check(self) -> None:
        """Refuse a model that is not there or does not fit."""
        self.captioner.check()

    def identity(self) -> dict[str, object]:
        """The captioner's identity."""
        return {"captioner": self.captioner.identity()}

    def open(self) -> Scorer:
        """Load the model."""
        captioner = self.captioner.open()

        def score(batch: pa.RecordBatch) -> pa.RecordBatch:
            rows = list(zip(batch[IMAGE.name].to_pylist(), batch[CAPTION.name].to_pylist(), strict=True))
            reasons = [no_pair(image, caption) for image, caption in rows]
            asked = [row for row, reason in zip(rows, reasons, strict=True) if reason is None]
            said = iter(captioner.scores(*zip(*asked, strict=True)) if asked else [])
            found = [reason or next(said) for reason in reasons]
            columns = list(zip(*map(_values, found), strict=True)) or [()] * len(self.returns())
            arrays = [pa.array(values, field.type) for values, field in zip(columns, self.returns(), strict=True)]
            return pa.record_batch(arrays, self.returns())

        return score


def _values(found: TokenScores | str) -> tuple[float | int | str | None, ...]:
    """One row: the written columns and the reason."""
    if isinstance(found, str) or not found.finite:
        reason = found if isinstance(found, str) else OVERFLOW
        return (None,) * len(CaptionLikelihood.writes) + (reason,)
    count = len(found.log_p_image)
    image, text = -float(found.log_p_image.mean()), -float(found.log_p_text.mean())
    return image, text, found.pmi / count, found.pmi, found.weight, count, None

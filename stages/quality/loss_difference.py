"""Two language models' losses on a caption, and their difference: what one of them has learned and the other has not.

MiniPLM (arXiv:2410.17215, difference sampling): loss of a small reference model minus loss of the teacher; its README
writes a ratio of logarithms, its code subtracts losses, and so do we. LoBaSS (arXiv:2310.13008, learnability):
(loss before fine-tuning - loss after) / loss before, which is `normalise: true`. Keep the largest with `top_fraction`.
"""

from collections.abc import Sequence
from typing import ClassVar, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pydantic import Field

from schemas.columns import CAPTION, named_column
from schemas.errors import RecipeError
from stages.captioners.text_losses import TextLosses, load_losses, model_identity, same_tokens
from stages.file_identity import Located
from stages.missing import no_caption
from stages.raters.backend import OVERFLOW
from stages.stage import Scorer, Stage

Doubles = npt.NDArray[np.float64]


def difference(reference: Doubles, teacher: Doubles, *, normalise: bool) -> Doubles:
    """(n,) reference - teacher, divided by reference where `normalise`; both > 0."""
    gap = reference - teacher
    return gap / reference if normalise else gap


class LossDifference(Stage):
    """`<column>_reference` and `<column>_teacher`, mean losses in nats, and `<column>_difference`.

    A token's mean is comparable between models of one tokenizer only; `per: byte` divides by the bytes of the caption's
    scored part instead, whatever the tokenizers.
    """

    version: ClassVar[int] = 2
    kind: Literal["loss_difference"] = "loss_difference"
    reference: Located
    """Folder of a causal language model, or a hub name in the local cache: MiniPLM's reference, LoBaSS's start."""
    teacher: Located
    """Likewise: MiniPLM's teacher, LoBaSS's fine-tuned model."""
    normalise: bool = False
    """Divide the difference by the reference's loss."""
    per: Literal["token", "byte"] = "token"
    """What losses are divided by."""
    column: str = Field(default="loss", pattern=r"^[a-z][a-z0-9_]*$")
    """How its columns begin; tells several pairs of models in one recipe apart."""
    max_tokens: int = Field(default=128, gt=0)
    """Caption tokens read; with `per: byte`, where two models would read two texts, a longer caption gets a reason."""
    device: Literal["cpu", "cuda"] = "cpu"
    threads: int = Field(default=1, gt=0)

    reads: ClassVar[tuple[pa.Field, ...]] = (CAPTION,)
    batch_rows: ClassVar[int] = 256

    @property
    def name(self) -> str:
        """Its kind, and how its columns begin where that is chosen."""
        return self.kind if self.column == "loss" else f"{self.kind}_{self.column}"

    @property
    def uses_gpu(self) -> bool:  # type: ignore[override]
        """Where its model is to run on one."""
        return self.device == "cuda"

    @property
    def writes(self) -> tuple[pa.Field, ...]:  # type: ignore[override]
        """The two losses and their difference."""
        unit, share = f"nats per {self.per}", ", as a share of the reference's loss" if self.normalise else ""
        return (
            named_column(f"{self.column}_reference", pa.float64(), f"loss of the reference model, {unit}", low=0),
            named_column(f"{self.column}_teacher", pa.float64(), f"loss of the teacher model, {unit}", low=0),
            named_column(f"{self.column}_difference", pa.float64(), f"reference minus teacher{share or f', {unit}'}"),
        )

    def check(self) -> None:
        """Refuse models that are not there, and losses per token of two tokenizers."""
        self.identity()
        if self.per == "token" and not same_tokens([self.reference, self.teacher]):
            raise RecipeError(
                "loss_difference: the two models have different tokenizers, so that losses per token are of different "
                "things; set `per: byte`"
            )

    def identity(self) -> dict[str, object]:
        """Settings, and both models by content."""
        settings = self.model_dump(mode="json", exclude={"kind", "optional", "reference", "teacher"})
        return {**settings, "weights": f"{model_identity(self.reference)}/{model_identity(self.teacher)}"}

    def open(self) -> Scorer:
        """Load both models."""
        models = [
            load_losses(name, max_tokens=self.max_tokens, device=self.device, threads=self.threads)
            for name in (self.reference, self.teacher)
        ]

        def score(batch: pa.RecordBatch) -> pa.RecordBatch:
            captions = batch[CAPTION.name].to_pylist()
            distinct = [caption for caption in dict.fromkeys(captions) if caption and caption.strip()]
            known = dict(zip(distinct, self._rows(models, distinct), strict=True))
            rows = [known.get(caption) or (None, None, None, no_caption(caption)) for caption in captions]
            columns = list(zip(*rows, strict=True)) or [()] * 4
            arrays = [pa.array(values, field.type) for values, field in zip(columns, self.returns(), strict=True)]
            return pa.record_batch(arrays, self.returns())

        return score

    def _rows(self, models: Sequence[TextLosses], captions: list[str]) -> list[tuple[float | str | None, ...]]:
        """Per caption both losses, the difference and the reason."""
        counts = np.array([[len(model.tokens(caption)) for caption in captions] for model in models]).reshape(2, -1)
        totals = np.array([model.losses(captions) for model in models]).reshape(2, -1)
        size = np.array([len(caption.encode()) for caption in captions]) if self.per == "byte" else counts
        cut = [self.per == "byte" and any(model.cuts(caption) for model in models) for caption in captions]
        finite = np.isfinite(totals).all(axis=0)
        reasons = [_reason(*row) for row in zip(cut, counts.min(0), finite, strict=True)]
        reference, teacher = totals / np.maximum(size, 1)
        gaps = difference(np.maximum(reference, 1e-12), teacher, normalise=self.normalise)
        return [
            (float(one), float(other), float(gap), None) if reason is None else (None, None, None, reason)
            for one, other, gap, reason in zip(reference, teacher, gaps, reasons, strict=True)
        ]


def _reason(too_long: bool, fewest: int, finite: bool) -> str | None:
    if fewest == 0:
        return "no_caption_tokens"
    if too_long:
        return "caption_too_long"
    return None if finite else OVERFLOW

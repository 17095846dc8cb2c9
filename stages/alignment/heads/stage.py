"""The stages `linear_head` and `mlp_head`: one number per embedding, under a name that the recipe gives."""

from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pydantic import Field, model_validator

from schemas.columns import IMAGE_EMBEDDING, TEXT_EMBEDDING, named_column
from schemas.errors import ContractError, RecipeError
from stages.alignment.heads.weights import Head, read_head
from stages.file_identity import Located, file_identity
from stages.stage import Scorer, Stage
from stages.vectors import Doubles, known_rows


class HeadStage(Stage):
    """What both kinds share; any number of them may stand in a recipe, each with its own column."""

    column: str
    """Name of the column it writes, e.g. `aesthetic_score`."""
    weights: Located
    """The head's safetensors file; see the package for its tensors."""
    of: Literal["image", "text"] = "image"
    """Which embedding it reads."""
    activation: Literal["identity", "sigmoid", "softmax"] | None = None
    """What follows the last layer; default: what the file says."""
    normalize: Literal["unit", "none"] | None = None
    """Whether embeddings are brought to norm 1 again after their float16; default: what the file says."""
    output: int | None = Field(default=None, ge=0)
    """Which output to write, of a head with several."""

    @model_validator(mode="after")
    def _free_name(self) -> "HeadStage":
        assert self.writes  # declares the column, or raises
        return self

    @property
    def name(self) -> str:
        """The kind and the column: `linear_head_aesthetic_score`."""
        return f"{self.kind}_{self.column}"

    @property
    def reads(self) -> tuple[pa.Field, ...]:  # type: ignore[override]
        """One embedding."""
        return (IMAGE_EMBEDDING,) if self.of == "image" else (TEXT_EMBEDDING,)

    @property
    def writes(self) -> tuple[pa.Field, ...]:  # type: ignore[override]
        """One number."""
        words = self.kind.replace("_", " ")
        return (named_column(self.column, pa.float32(), f"{words} on the {self.of} embedding"),)

    def head(self) -> Head:
        """The head behind these settings.

        Raises:
            RecipeError: see `read_head`; or `output` does not fit the number of outputs.
        """
        raise ContractError(f"{type(self).__name__} does not implement head()")

    def picked(self, head: Head) -> int:
        """The output to write.

        Raises:
            RecipeError: it is not told, or there is none of this number.
        """
        if (self.output is None and head.outputs > 1) or (self.output or 0) >= head.outputs:
            raise RecipeError(
                f"{self.name}: the head has {head.outputs} outputs and `output` is {self.output}; "
                f"expected 0 to {head.outputs - 1}"
            )
        return self.output or 0

    def check(self) -> None:
        """Refuse a head that cannot be used.

        Raises:
            RecipeError: see `head` and `picked`.
        """
        self.picked(self.head())

    def widths(self) -> dict[str, int]:
        """What the head expects."""
        return {self.reads[0].name: self.head().width}

    def identity(self) -> dict[str, object]:
        """The head by its content, and the settings."""
        file = Path(self.weights)
        return {**super().identity(), "weights": file_identity(file) if file.is_file() else "missing"}

    def open(self) -> Scorer:
        """Read the head."""
        head = self.head()
        return _scorer(self, head, self.picked(head))


class LinearHead(HeadStage):
    """One affine map of an embedding, e.g. LAION's first aesthetic predictor."""

    kind: Literal["linear_head"] = "linear_head"

    def head(self) -> Head:
        """See the base."""
        return read_head(Path(self.weights), linear=True, activation=self.activation, normalize=self.normalize)


class MlpHead(HeadStage):
    """A small MLP on an embedding, e.g. LAION's improved aesthetic predictor or its NSFW detector."""

    kind: Literal["mlp_head"] = "mlp_head"
    hidden: Literal["identity", "relu"] | None = None
    """What follows every layer but the last; default: what the file says."""

    def head(self) -> Head:
        """See the base."""
        return read_head(
            Path(self.weights),
            linear=False,
            hidden=self.hidden,
            activation=self.activation,
            normalize=self.normalize,
        )


def _scorer(stage: HeadStage, head: Head, output: int) -> Callable[[pa.RecordBatch], pa.RecordBatch]:
    (read,), (written,) = stage.reads, stage.writes

    def score(batch: pa.RecordBatch) -> pa.RecordBatch:
        rows, there = known_rows(batch[read.name], head.width, stage.name)
        values = _finite(head(rows)[:, output], there, written.type)
        known = values.is_valid().to_numpy(zero_copy_only=False)
        reasons = np.where(there, np.where(known, None, "no_score"), "missing_embedding")  # type: ignore[call-overload]
        return pa.record_batch([values, pa.array(reasons, pa.string())], stage.returns())

    return score


def _finite(values: Doubles, there: npt.NDArray[np.bool_], dtype: pa.DataType) -> pa.Array:
    """Values of the rows that are there as a column over all rows, null elsewhere and where they are not finite."""
    column = np.full(len(there), np.nan)
    column[there] = values
    with np.errstate(over="ignore"):
        numbers = column.astype(dtype.to_pandas_dtype())
    return pa.array(numbers, dtype, mask=~np.isfinite(numbers))

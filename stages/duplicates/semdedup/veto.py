"""The veto: which second embedding has to agree, and what may be one."""

from typing import Annotated

import polars as pl
import pyarrow as pa
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from schemas.columns import COLUMNS, IMAGE_EMBEDDING
from schemas.errors import RecipeError


def _second_embedding(column: str) -> str:
    if column == IMAGE_EMBEDDING.name:
        raise ValueError(f"{column!r} is what the veto is to be against; name another embedding")
    field = COLUMNS.get(column)
    if field is not None and not (pa.types.is_list(field.type) and pa.types.is_floating(field.type.value_type)):
        raise ValueError(f"column {column!r} holds {field.type}, no embedding; name a column of lists of floats")
    return column


class Veto(BaseModel):
    """A second embedding that has to agree: a pair is close only if its cosine by `column` is above `above`, too."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    column: Annotated[str, AfterValidator(_second_embedding)]
    above: float = Field(ge=0, lt=1)

    def require_embedding(self, rows: pl.LazyFrame) -> None:
        """Refuse a column that holds no embeddings.

        Raises:
            RecipeError: with the type found.
        """
        dtype = rows.collect_schema()[self.column]
        if not (isinstance(dtype, pl.List) and isinstance(dtype.inner, pl.DataType) and dtype.inner.is_float()):
            raise RecipeError(f"column {self.column!r} holds {dtype}, no embedding; name a column of lists of floats")

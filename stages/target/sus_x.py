"""SuS-X (Udandarao et al., arXiv:2211.16198): a support set from class names alone, for a target nobody has images of.

This is their SuS-LC, which takes the images of a large pool (theirs: LAION-5B) that CLIP finds most similar to each
class's prompts, equally many for each class. TIP-X, their classifier over that set, is no selection and is left out.

The model's part is the `concepts` stage: it embeds the names, in a template or in prompts of one's own (theirs are
descriptions by a language model), and writes the cosine of every image with every class. So a rule loads no model, and
another budget or another subset of the classes costs nothing.
"""

from typing import Annotated, Any, Literal

import polars as pl
from pydantic import Field, model_validator

from stages.order import require_numeric
from stages.rule import Context, gathered, whole_and_missing
from stages.selector import Ranking, Selector
from stages.turns import in_turn, shares_of_lists


class SusX(Selector):
    """The m images most similar to each class, with m as large as the budget buys; score is the best place, negative.

    Reads `<column>_<class>` as a `concepts` step with `score: cosine` writes them. An image that is among the m of two
    classes counts once. Rows without an embedding are dropped as `<column>_<class>_missing`.
    """

    kind: Literal["sus_x"] = "sus_x"
    column: str = "concept"
    """That of the `concepts` step."""
    classes: Annotated[tuple[str, ...], Field(min_length=1)]
    """Names of concepts."""

    @model_validator(mode="after")
    def _once(self) -> "SusX":
        if twice := sorted({name for name in self.classes if self.classes.count(name) > 1}):
            raise ValueError(f"class {twice[0]!r} is named twice; a class has one share of the budget")
        return self

    def reads(self) -> tuple[str, ...]:
        """One column per class."""
        return tuple(f"{self.column}_{name}" for name in self.classes)

    def rank(self, rows: pl.LazyFrame, context: Context) -> Ranking:
        """Sort each class's cosines.

        Raises:
            RecipeError: a column holds no numbers.
        """
        columns = self.reads()
        for column in columns:
            require_numeric(rows, column)
        whole, missing = whole_and_missing(gathered(rows, context, *columns), columns)
        cosines = {column: whole[column].cast(pl.Float64).to_numpy() for column in columns}
        ranked = in_turn(whole["uid"], cosines, context.seed, self.kind)
        cosine = whole.select("uid", *(pl.col(column).alias(_cosine(column)) for column in columns))
        return Ranking(ranked.join(cosine, on="uid", how="left"), missing)

    def describe(self, kept: pl.DataFrame) -> dict[str, Any]:
        """Per class its rows, and the cosine of the last of them."""
        columns = self.reads()
        found = shares_of_lists(kept, list(columns))
        lowest = {
            column: kept.filter(pl.col(column) <= found["places"])[_cosine(column)].cast(pl.Float64).min()
            for column in columns
        }
        classes = {
            name: {"rows": found["rows"][column], "lowest": lowest[column]}
            for name, column in zip(self.classes, columns, strict=True)
        }
        return {"classes": classes, "rows_of_several_classes": found["in_several"]}


def _cosine(column: str) -> str:
    return f"cosine of {column}"

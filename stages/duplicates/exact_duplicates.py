"""Exact duplicates: rows with the same image bytes, or the same image and caption, by 128-bit content hash.

Two different contents share a hash with probability n^2 / 2^129 (3e-17 for 10^11 rows), so bytes are not compared
again. All rows are grouped in one place: a hash and an id a row, and captions where they count.
"""

from typing import Annotated, ClassVar, Literal

import polars as pl
from pydantic import AfterValidator

from schemas.columns import CAPTION, IMAGE_HASH
from stages.order import numeric_name, preferred_first, require_numeric
from stages.rule import Context, Rule, Verdict, drop_lines

SAME = {"image": (IMAGE_HASH.name,), "sample": (IMAGE_HASH.name, CAPTION.name)}


class ExactDuplicates(Rule):
    """Keeps one row of each set of equals: highest `prefer` (nulls last), then smallest uid.

    `of: image` compares the image's bytes, `of: sample` image and caption (two missing captions are equal). Drops as
    `exact_duplicate`, `duplicate_of` names the survivor. A row without an image hash stays.
    """

    version: ClassVar[int] = 2
    likeness: ClassVar[str] = "1: equal content"

    kind: Literal["exact_duplicates"] = "exact_duplicates"
    of: Literal["image", "sample"] = "image"
    prefer: Annotated[str, AfterValidator(numeric_name)] | None = None

    def columns(self) -> tuple[str, ...]:
        """What is compared, and the score that decides who survives."""
        return SAME[self.of] + ((self.prefer,) if self.prefer else ())

    def judge(self, rows: pl.LazyFrame, context: Context) -> Verdict:
        """Name every row that follows an equal one.

        Raises:
            RecipeError: `prefer` holds no numbers.
        """
        if self.prefer:
            require_numeric(rows, self.prefer)
        hashed = rows.filter(pl.col(IMAGE_HASH.name).is_not_null()).select("uid", *self.columns()).collect()
        ranked = preferred_first(hashed, self.prefer)
        first = pl.col("uid").first().over(SAME[self.of]).alias("duplicate_of")
        twins = ranked.with_columns(first, pl.lit(1.0).alias("similarity"))
        twins = twins.filter(pl.col("uid") != pl.col("duplicate_of"))
        sizes = twins.group_by("duplicate_of").len()["len"].to_list()
        evidence = {"of": self.of, "groups": len(sizes), "largest_group": max(sizes) + 1 if sizes else 0}
        return Verdict(drop_lines(twins, "exact_duplicate").sort("uid"), evidence=evidence)

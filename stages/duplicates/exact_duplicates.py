"""Exact duplicates: rows with the same image bytes, or the same image and caption, by 128-bit content hash.

Two different contents share a hash with probability n^2 / 2^129 (3e-17 for 10^11 rows), so bytes are not compared
again. Beyond one machine captions are hashed by part of the pool, and the first digit of an image's hash is the
partition of its equals; one process holds the hashes and the id of each row.
"""

from typing import Annotated, ClassVar, Literal

import polars as pl
import xxhash
from pydantic import AfterValidator

from schemas.columns import CAPTION, IMAGE_HASH
from stages.order import numeric_name, preferred_first, require_numeric
from stages.rule import Context, Rule, Verdict, drop_lines

SAME = {"image": (IMAGE_HASH.name,), "sample": (IMAGE_HASH.name, CAPTION.name)}
DIGIT = pl.col(IMAGE_HASH.name).str.slice(0, 1)


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
        hashed = pl.concat(context.each_part(rows, self._hashed))
        pieces = [piece for _, piece in hashed.group_by(DIGIT, maintain_order=True)]
        twins = pl.concat(context.map(self._twins, pieces or [hashed]))
        sizes = twins.group_by("duplicate_of").len()["len"].to_list()
        evidence = {"of": self.of, "groups": len(sizes), "largest_group": max(sizes) + 1 if sizes else 0}
        return Verdict(drop_lines(twins, "exact_duplicate").sort("uid"), evidence=evidence)

    def _hashed(self, part: pl.DataFrame) -> pl.DataFrame:
        """What is compared as hashes, of the rows that have an image."""
        own = part.filter(pl.col(IMAGE_HASH.name).is_not_null()).select("uid", *self.columns())
        return own.with_columns(pl.col(CAPTION.name).map_elements(_hash, pl.String)) if self.of == "sample" else own

    def _twins(self, hashed: pl.DataFrame) -> pl.DataFrame:
        """Rows that follow an equal one, with it."""
        first = pl.col("uid").first().over(SAME[self.of]).alias("duplicate_of")
        twins = preferred_first(hashed, self.prefer).select("uid", first, pl.lit(1.0).alias("similarity"))
        return twins.filter(pl.col("uid") != pl.col("duplicate_of"))


def _hash(text: str) -> str:
    return xxhash.xxh3_128_hexdigest(text.encode())

"""The rule: captions that carry a flag leave, each under the code of its most serious one."""

from typing import ClassVar, Literal

import polars as pl
from pydantic import Field, model_validator

from schemas.columns import CAPTION_FLAGS
from stages.quality.caption_safety.stage import FLAGS, Flag
from stages.rule import Context, Rule, Verdict, drop_lines, gathered, missing_rows


class CaptionFlags(Rule):
    """Drops rows that carry one of `flags`; the reason is the most serious of those they carry.

    Works row by row, so any partition of a larger table gives the same verdicts.
    """

    quotes_captions: ClassVar[bool] = False

    kind: Literal["caption_flags"] = "caption_flags"
    flags: tuple[Flag, ...] = Field(FLAGS, min_length=1)
    """Which ones drop; default: all."""

    @model_validator(mode="after")
    def _once(self) -> "CaptionFlags":
        if len(set(self.flags)) < len(self.flags):
            raise ValueError(f"found flags {list(self.flags)}; name each once")
        return self

    def columns(self) -> tuple[str, ...]:
        """The flags."""
        return (CAPTION_FLAGS.name,)

    def judge(self, rows: pl.LazyFrame, context: Context) -> Verdict:
        """Look for each flag, the most serious first; the evidence holds counts per flag, overlaps included."""
        table = gathered(rows, context, "source", CAPTION_FLAGS.name)
        carries = {flag: pl.col(CAPTION_FLAGS.name).list.contains(flag).fill_null(False) for flag in FLAGS}
        wanted = [pl.when(carries[flag]).then(pl.lit(flag)) for flag in FLAGS if flag in self.flags]
        judged = table.with_columns(pl.coalesce(wanted).alias("reason"))
        lost = [drop_lines(judged.filter(pl.col("reason") == flag), flag) for flag in self.flags]
        dropped = pl.concat([missing_rows(table, CAPTION_FLAGS.name), *lost]).sort("uid")
        found = table.group_by("source").agg(carries[flag].sum().alias(flag) for flag in FLAGS).sort("source")
        return Verdict(dropped, evidence={"carried": {row.pop("source"): row for row in found.to_dicts()}})

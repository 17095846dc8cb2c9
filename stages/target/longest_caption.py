"""The longest captions: a baseline that beats many selectors in fine-tuning and that all of them have to beat.

From "Rethinking Data Selection for Supervised Fine-Tuning" (arXiv:2402.06094) and "Long Is More for Alignment"
(arXiv:2402.04833), which keep the 1,000 longest responses. Changed: captions instead of responses; length is in words
and signs as a budget of tokens counts them, so no tokenizer of a model has a say.
"""

from typing import Any, Literal

import polars as pl

from schemas.columns import CAPTION
from stages.budget import TOKENS
from stages.rule import Context, drop_lines
from stages.selector import Ranking, Selector


class LongestCaption(Selector):
    """Ranks by the tokens of the caption; one that is null or holds no token is dropped as `caption_missing`."""

    kind: Literal["longest_caption"] = "longest_caption"

    def reads(self) -> tuple[str, ...]:
        """The captions."""
        return (CAPTION.name,)

    def rank(self, rows: pl.LazyFrame, context: Context) -> Ranking:
        """Count tokens; captions do not leave their part."""
        counted = pl.concat(context.each_part(rows, lambda part: part.select("uid", TOKENS))).sort("uid")
        worded = counted.filter(pl.col("tokens") > 0)
        wordless = drop_lines(counted.filter(pl.col("tokens") == 0), f"{CAPTION.name}_missing")
        evidence = {"mean_tokens": _mean(worded["tokens"])}
        return Ranking(worded.with_columns(pl.col("tokens").alias("score")), wordless, evidence)

    def describe(self, kept: pl.DataFrame) -> dict[str, Any]:
        """How much longer they are."""
        return {"mean_tokens_kept": _mean(kept["tokens"])}


def _mean(tokens: pl.Series) -> float | None:
    return int(tokens.sum()) / len(tokens) if len(tokens) else None

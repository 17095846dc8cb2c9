"""The stage: every measure of one caption."""

from typing import Annotated, ClassVar, Literal, NamedTuple

import pyarrow as pa
from pydantic import Field

from schemas.columns import (
    BOILERPLATE,
    BOILERPLATE_SHARE,
    CAPTION,
    DIGIT_SHARE,
    FILE_NAME,
    FILE_NAME_SHARE,
    REPEATED_NGRAM_SHARE,
    SYMBOL_SHARE,
    TOP_NGRAM_SHARE,
    TRUNCATED_ENDING,
    UPPERCASE_SHARE,
    URL_SHARE,
)
from stages.normal_form import composed
from stages.quality.caption_rules.boilerplate import boilerplate
from stages.quality.caption_rules.endings import ending
from stages.quality.caption_rules.file_names import file_name
from stages.quality.caption_rules.ngrams import repeated_ngram_share, repeats, top_ngram_share, words
from stages.quality.caption_rules.shares import shares, url_characters
from stages.stage import Scorer, Stage

CHARACTERS_SEEN = 1 << 16
"""This many leading characters count, and the last 400 for the ending; every measure takes linear time in them."""


class CaptionMeasures(NamedTuple):
    """One caption's columns, in the order of `CaptionRules.writes`, and the reason; None where there is no caption."""

    digit_share: float | None = None
    symbol_share: float | None = None
    uppercase_share: float | None = None
    url_share: float | None = None
    top_ngram_share: float | None = None
    repeated_ngram_share: float | None = None
    boilerplate: str | None = None
    boilerplate_share: float | None = None
    file_name: str | None = None
    file_name_share: float | None = None
    truncated_ending: str | None = None
    reason: str | None = None


class CaptionRules(Stage):
    """Shares of digits, symbols, capitals and addresses, repetition, page furniture, file names, broken endings.

    No caption gets a reason, nor does one that shows nothing. What is decided with it stands in the recipe: `at_most`
    on a share, `none_of` on a kind.
    """

    version: ClassVar[int] = 3
    kind: Literal["caption_rules"] = "caption_rules"
    repeated_words: int = Field(3, ge=2, le=10)
    """n of the word n-grams in `repeated_ngram_share`; Gopher takes 5 to 10, of whole pages."""
    cut_lengths: tuple[Annotated[int, Field(ge=1)], ...] = ()
    """Lengths at which a source is known to cut its captions, in characters."""

    reads: ClassVar[tuple[pa.Field, ...]] = (CAPTION,)
    writes: ClassVar[tuple[pa.Field, ...]] = (
        DIGIT_SHARE,
        SYMBOL_SHARE,
        UPPERCASE_SHARE,
        URL_SHARE,
        TOP_NGRAM_SHARE,
        REPEATED_NGRAM_SHARE,
        BOILERPLATE,
        BOILERPLATE_SHARE,
        FILE_NAME,
        FILE_NAME_SHARE,
        TRUNCATED_ENDING,
    )
    batch_rows: ClassVar[int] = 4096

    def measures(self, caption: str | None) -> CaptionMeasures:
        """Everything about one caption."""
        if caption is None:
            return CaptionMeasures(reason="missing_caption")
        text = composed(caption.strip()[:CHARACTERS_SEEN])
        characters = shares(text)
        if characters is None:
            return CaptionMeasures(reason="empty_caption")
        lowered = text.lower()
        furniture, furniture_length = boilerplate(lowered)
        name, name_length = file_name(lowered)
        tokens = words(lowered)
        repeated = repeats(tokens)
        return CaptionMeasures(
            *characters,
            url_characters(lowered) / len(lowered),
            top_ngram_share(tokens) if repeated else 0.0,
            repeated_ngram_share(tokens, self.repeated_words) if repeated else 0.0,
            furniture,
            furniture_length / len(lowered),
            name,
            name_length / len(lowered),
            ending(caption, self.cut_lengths),
        )

    def open(self) -> Scorer:
        """Nothing to load."""
        return self._score

    def _score(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        captions = batch[CAPTION.name].to_pylist()
        known = {caption: self.measures(caption) for caption in dict.fromkeys(captions)}
        schema = self.returns()
        columns = list(zip(*(known[caption] for caption in captions), strict=True)) or [()] * len(schema)
        arrays = [pa.array(values, field.type) for values, field in zip(columns, schema, strict=True)]
        return pa.record_batch(arrays, schema)

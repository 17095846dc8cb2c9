"""The stage: which flags a caption carries, and how many passages earned them."""

from typing import ClassVar, Literal, get_args

import pyarrow as pa

from schemas.columns import CAPTION, CAPTION_FINDINGS, CAPTION_FLAGS
from stages.quality.caption_safety.assistant_talk import talk
from stages.quality.caption_safety.encoded_runs import encoded_runs
from stages.quality.caption_safety.personal_data import cards, emails, phones
from stages.quality.caption_safety.plain import plain, shows_nothing
from stages.stage import Scorer, Stage

Flag = Literal[
    "jailbreak", "score_request", "pii_card", "pii_email", "pii_phone", "chat_markup", "encoded_run", "instruction_like"
]
FLAGS: tuple[Flag, ...] = get_args(Flag)
"""Most serious first."""

Findings = tuple[list[str] | None, int | None, str | None]
"""Flags, number of passages, reason."""


def findings(caption: str | None) -> Findings:
    """What one caption is flagged for; no flag is an empty list."""
    if caption is None:
        return None, None, "missing_caption"
    text = plain(caption)
    if not text and shows_nothing(caption):
        return None, None, "empty_caption"
    lowered = text.lower()
    counts: dict[str, int] = dict.fromkeys(FLAGS, 0)
    for kind in talk(lowered):
        counts[kind] += 1
    counts["encoded_run"] = encoded_runs(text)
    counts["pii_email"] = emails(lowered)
    counts["pii_phone"] = phones(lowered)
    counts["pii_card"] = cards(lowered)
    return [flag for flag, count in counts.items() if count], sum(counts.values()), None


class CaptionSafety(Stage):
    """Flags instructions to a model, chat markup, encoded data and people's data in the caption.

    No caption gets a reason. The flags are a column: `caption_flags` drops by them, each under its own code. What was
    found is counted, never quoted: neither the columns nor a rule's evidence repeat a person's data.
    """

    version: ClassVar[int] = 4
    kind: Literal["caption_safety"] = "caption_safety"

    reads: ClassVar[tuple[pa.Field, ...]] = (CAPTION,)
    writes: ClassVar[tuple[pa.Field, ...]] = (CAPTION_FLAGS, CAPTION_FINDINGS)
    batch_rows: ClassVar[int] = 4096

    def open(self) -> Scorer:
        """Nothing to load."""
        return self._score

    def _score(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        captions = batch[CAPTION.name].to_pylist()
        known = {caption: findings(caption) for caption in dict.fromkeys(captions)}
        schema = self.returns()
        columns = list(zip(*(known[caption] for caption in captions), strict=True)) or [()] * len(schema)
        arrays = [pa.array(values, field.type) for values, field in zip(columns, schema, strict=True)]
        return pa.record_batch(arrays, schema)

"""Texts without an image in every batch, for options that train inside the language model (MM1, arXiv:2403.09611).

They keep its skill with text while it learns to read images. A connector never sees them: with the language model
frozen, no text can train anything, and the share would be wasted.
"""

from pydantic import BaseModel, ConfigDict, Field

TEXT = "/text"
"""The texts among the sources; no source's name has a slash."""


class TextOnly(BaseModel):
    """Which texts, and how many."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    shards: tuple[str, ...] = Field(min_length=1)
    """WebDataset tars; the captions of their samples are read, whether there is an image or not."""
    share: float = Field(gt=0, lt=1)
    """Of every batch."""

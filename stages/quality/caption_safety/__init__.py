"""Captions that no trainer wants to meet by accident: orders to a model, its chat markup, encoded data, people's data.

The stage flags, the rule decides; each flag is the reason code under which a sample leaves. Patterns only, no model and
no judgement of intent: a flag says what stands in the caption. Words wholly in look-alike letters of another script,
orders in other languages than English (but for the commonest in four), names and street addresses are not seen.
"""

from stages.quality.caption_safety.rule import CaptionFlags
from stages.quality.caption_safety.stage import CaptionSafety

__all__ = ["CaptionFlags", "CaptionSafety"]

"""Duplicates by both sides of a pair: image and caption, each by a likeness of the recipe's choice (ours).

A caption alone is weak evidence (many photographs share a good one), and so is an image alone where its captions say
different things. So a recipe says what counts on each side, and whether both or either make a duplicate.
"""

from stages.duplicates.bimodal_duplicates.rule import BimodalDuplicates

__all__ = ["BimodalDuplicates"]

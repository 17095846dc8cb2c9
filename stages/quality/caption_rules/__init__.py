"""Rules on a caption's text that need no model: shares of characters, repetition, page furniture, file names, endings.

Sources: Gopher's repetition and symbol rules (Rae et al., arXiv:2112.11446, appendix A.1.1), C4's phrases that betray a
page's furniture (Raffel et al., arXiv:1910.10683, section 2.2), RefinedWeb's line-wise ones (Penedo et al.,
arXiv:2306.01116, appendix G.2). All of them were made for pages of a thousand words. A caption has ten, so nothing here
decides: each measure is a column, and thresholds belong to the recipe.
"""

from stages.quality.caption_rules.stage import CaptionRules

__all__ = ["CaptionRules"]

"""DSIR, data selection by importance resampling (Xie et al., arXiv:2302.03169), for captions and for documents.

A caption's importance is the ratio of two bags of hashed n-grams, the target's over the pool's; rows are drawn without
replacement by Gumbel top-k. `mode: exact` is the published method as released (PyPI `data-selection` 1.0.3), with its
weights. On captions that method drops nearly everything (fewer than 100 tokens) or, with the length filter off, prefers
short captions, because a sum of log ratios shrinks with length. `mode: caption`, the default, weighs per token.
"""

from stages.target.dsir.rule import Dsir

__all__ = ["Dsir"]

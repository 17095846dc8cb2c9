"""Multimodal language models as raters: rubrics, the prompt that keeps a caption data, and backends of one interface.

The stages that use them are `quality/mlm_filter` (arXiv:2403.02677) and `quality/rater` (after arXiv:2502.19363).
"""

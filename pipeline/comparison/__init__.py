"""Several selectors at one budget on the same survivors, held side by side."""

from pipeline.comparison.compare import compare_selectors

__all__ = ["compare_selectors"]
